"""`cryptography` is an extra: nothing needs it until a secure channel is built, and its absence says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=480, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["wardround.cli.app", "wardround.channels.home"])
def test_the_command_line_does_not_import_it(module: str) -> None:
    print_it = "print(any(name.split('.')[0] == 'cryptography' for name in sys.modules))"
    assert python(f"import sys, {module}; {print_it}") == "False\n"


@pytest.mark.parametrize(
    "code", ["import wardround.channels.secagg.site", "from wardround.channels.home import Home; Home.simulated(['a'])"]
)
def test_its_absence_says_what_to_install(code: str) -> None:
    out = python(
        "import sys; sys.modules['cryptography'] = None\n"
        f"from wardround.errors import ConfigError\ntry:\n    {code}\nexcept ConfigError as error:\n    print(error)"
    )
    assert out == 'cryptography is not installed, and this needs it: pip install "wardround[secure]"\n'
