import pytest

from wardround.data.datasets import icd9


@pytest.mark.parametrize(
    ("code", "group"),
    [
        # both ends of each range of the paper's table, and their neighbours
        ("139", "other"),
        ("140", "neoplasms"),
        ("239", "neoplasms"),
        ("240", "other"),
        ("249", "other"),
        ("250", "diabetes"),
        ("250.8", "diabetes"),
        ("250.83", "diabetes"),
        ("251", "other"),
        ("389", "other"),
        ("390", "circulatory"),
        ("459", "circulatory"),
        ("460", "respiratory"),
        ("519", "respiratory"),
        ("520", "digestive"),
        ("579", "digestive"),
        ("580", "genitourinary"),
        ("629", "genitourinary"),
        ("630", "other"),
        ("709", "other"),
        ("710", "musculoskeletal"),
        ("739", "musculoskeletal"),
        ("740", "other"),
        ("784", "other"),
        ("785", "circulatory"),
        ("786", "respiratory"),
        ("787", "digestive"),
        ("788", "genitourinary"),
        ("789", "other"),
        ("799", "other"),
        ("800", "injury"),
        ("999", "injury"),
        ("8", "other"),
        ("008", "other"),
        ("V27", "other"),
        ("E878", "other"),
    ],
)
def test_groups_of_the_paper(code: str, group: str) -> None:
    assert icd9.categories()[code] == group


def test_codes_of_another_edition_are_none() -> None:
    assert not {"I10", "E11.9", "1000", "0", "414.01", "V92"} & set(icd9.categories())


def test_every_group_has_codes() -> None:
    assert set(icd9.categories().values()) == set(icd9.GROUPS)
