"""How many shares open a secret, who masks with whom, and how many may drop: the parameters of the masks.

A group of n sites is complete (every site shares a mask with every other, as in Bonawitz et al. 2017), or each site has k
neighbours on a ring in random order (Bell et al. 2020, section 3: a Harary graph with shuffled names).

A site's two secrets, the key of its pairwise masks and the seed of its own mask, are shared among the m = k + 1 sites of its
closed neighbourhood, and t shares open one. Who is counted is told one set of survivors and opens one secret a site, so a server
that shows different sets to different sites needs 2t shares from m + c': those of the m - c' honest ones once, of the c'
that collude with it twice. Hence t > (m + c') / 2, always.

For the ring there are three bounds, all over its random order, all computed exactly:

- **connected**: with r of n sites gone (those that collude, and a third that dropped) the rest must hang together, or the
  server learns the sum of a part. A ring falls apart only where two separate runs of k/2 neighbours are gone:
  P <= C(n, 2) C(n - k, r - k) / C(n, r), at most 2^-40.
- **collusion**: c' is the least number with n P[Hypergeometric(n - 1, c, k) > c'] <= 2^-40.
- **opening**: where a fifth drops, every neighbourhood keeps t survivors but for 2^-10 of the exchanges. This one costs a
  repetition, not a secret.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from wardround.errors import ConfigError

SECURITY = 40
"""Bits: the ring's bounds on privacy hold but for 2^-40."""
AVAILABILITY = 10
COMPLETE = 32
"""Sites of a group up to which it is complete where `neighbours` is not set."""
_GONE = 3
"""Of so many sites one may be gone without a ring falling apart."""
_USUAL = 5
"""Of so many sites one may be gone without an exchange being likely to fail."""
_LEAST = 2


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a group of a certain size goes by.

    Attributes:
        degree: neighbours of a site; n - 1 in a complete group.
        threshold: shares that open a secret, of the degree + 1 that there are.
        survivors: fewer in the sum, and it is not opened.
    """

    degree: int
    threshold: int
    survivors: int


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """How masks are agreed on.

    Attributes:
        threshold: fraction of a neighbourhood whose shares open a secret, above a half; None: the least that is safe.
        colluders: sites of a group that may join forces with the server; None: a third of the others where `active`, else none.
        active: protects against a server that lies, for one more exchange a round: sites sign whom they take for survivors.
        neighbours: with how many others of its group a site shares a mask, an even number; None: with all up to 32 sites or
            where `active`, else as many as the bounds ask for.
        groups: into how many groups sites are divided, each with a sum of its own.
        minimum: least sites of a sum. With 2, the sum tells each the other's part; masks then hide them from the server only.

    Raises:
        ConfigError: a value out of range, or a server that may lie together with a ring, for whose order it could choose.
    """

    threshold: float | None = None
    colluders: int | None = None
    active: bool = False
    neighbours: int | None = None
    groups: int = 1
    minimum: int = 3

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.5 < self.threshold <= 1.0:
            raise ConfigError(f"threshold = {self.threshold}: expected a fraction above 0.5 and up to 1")
        if self.colluders is not None and self.colluders < 0:
            raise ConfigError(f"colluders = {self.colluders}: expected a number of sites, 0 or more")
        if self.groups < 1:
            raise ConfigError(f"groups = {self.groups}: expected 1 or more")
        if self.minimum < _LEAST:
            raise ConfigError(
                f"minimum = {self.minimum}: a sum over one site is that site's; expected {_LEAST} or more"
            )
        if self.neighbours is not None:
            if self.neighbours < _LEAST or self.neighbours % 2:
                raise ConfigError(f"neighbours = {self.neighbours}: expected an even number, {_LEAST} or more")
            if self.active:
                raise ConfigError(
                    f"neighbours = {self.neighbours} with active = true: a server that lies can try rosters until the order of "
                    "the ring suits it, and the bounds count on a random one; leave one of the two out"
                )

    def check(self, sites: int) -> None:
        """Whether a round of `sites` sites can be. Raises ConfigError."""
        if sites // self.groups < self.minimum:
            raise ConfigError(
                f"{sites} sites in {self.groups} group(s): expected at least {self.minimum} in each; take fewer groups or "
                "more sites"
            )
        for size in {sites // self.groups, -(-sites // self.groups)}:
            rule_of(self, size)


@cache
def rule_of(spec: MaskSpec, sites: int) -> Rule:
    """The rule of a group of so many sites.

    Raises:
        ConfigError: there is none: too few sites, or too many that collude.
    """
    if sites < spec.minimum:
        raise ConfigError(f"{sites} sites in a group: expected at least {spec.minimum}")
    colluders = spec.colluders
    if colluders is None:
        colluders = (sites - 1) // 3 if spec.active else 0
    if colluders > sites - 2:
        raise ConfigError(
            f"colluders = {colluders} of {sites} sites in a group: expected two or more that do not collude"
        )
    if spec.neighbours is not None and spec.neighbours < sites - 1:
        return _ring(spec, sites, colluders, spec.neighbours)
    if spec.neighbours is None and not spec.active and sites > COMPLETE:
        for degree in range(_LEAST, sites - 1, 2):
            if _connected(sites, degree, colluders) and _opens(spec, sites, colluders, degree):
                return _ring(spec, sites, colluders, degree)
    return _complete(spec, sites, colluders)


def _complete(spec: MaskSpec, sites: int, colluders: int) -> Rule:
    # one may always drop, but where a sum of fewer sites would be too small
    most = sites if sites == spec.minimum else sites - 1
    threshold = _threshold(spec, sites, colluders, least=spec.minimum, most=most)
    if threshold is None:
        raise ConfigError(
            f"colluders = {colluders} of {sites} sites in a group: more than {(sites + colluders) // 2} shares must be "
            f"needed, and at most {most} can be, so that one site may drop out; take fewer, or more sites"
        )
    return Rule(degree=sites - 1, threshold=threshold, survivors=threshold)


def _ring(spec: MaskSpec, sites: int, colluders: int, degree: int) -> Rule:
    threshold = _threshold(spec, degree + 1, _inside(sites, colluders, degree), least=1, most=degree)
    if threshold is None or not _connected(sites, degree, colluders):
        raise ConfigError(
            f"neighbours = {degree} of {sites} sites in a group, {colluders} of which may collude: too few for a chance below "
            f"2^-{SECURITY} that some part of the sum is seen; take more, or leave it out"
        )
    return Rule(degree=degree, threshold=threshold, survivors=max(sites - sites // _GONE, spec.minimum))


def _threshold(spec: MaskSpec, holders: int, colluders: int, *, least: int, most: int) -> int | None:
    needed = max((holders + colluders) // 2 + 1, least)
    wanted = 0 if spec.threshold is None else math.ceil(spec.threshold * holders)
    return min(max(needed, wanted), most) if needed <= most else None


def _connected(sites: int, degree: int, colluders: int) -> bool:
    gone = min(colluders + sites // _GONE, sites)
    if gone < degree:
        return True
    return math.comb(sites, 2) * math.comb(sites - degree, gone - degree) << SECURITY <= math.comb(sites, gone)


def _inside(sites: int, colluders: int, degree: int) -> int:
    """c': at most so many of an honest site's neighbours collude."""
    bound = 0
    while sites * _more_than(bound, sites - 1, colluders, degree) << SECURITY > math.comb(sites - 1, degree):
        bound += 1
    return bound


def _opens(spec: MaskSpec, sites: int, colluders: int, degree: int) -> bool:
    threshold = _threshold(spec, degree + 1, _inside(sites, colluders, degree), least=1, most=degree)
    if threshold is None:
        return False
    lost = _more_than(degree - threshold, sites - 1, sites // _USUAL, degree)
    return sites * lost << AVAILABILITY <= math.comb(sites - 1, degree)


def _more_than(bound: int, sites: int, marked: int, drawn: int) -> int:
    """In how many of the C(sites, drawn) draws there are more than `bound` of the marked ones."""
    return sum(
        math.comb(marked, j) * math.comb(sites - marked, drawn - j) for j in range(bound + 1, min(marked, drawn) + 1)
    )
