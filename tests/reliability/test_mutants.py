"""Every mutant is still of this tree, and what is to catch it is still there; `make mutants` sees that it does."""

import re
import shlex

import pytest

from tests.kit.process import ROOT
from tests.reliability.mutate import MUTANTS, Copy, Mutant, MutantError, all_mutants, hunt, together

ALL = all_mutants()
LEAST = 30
"""There are to be as many; a glob that finds none would make all of this pass."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return Copy(tmp_path_factory.mktemp("mutants"))


def test_there_are_mutants_of_every_promise():
    assert len(ALL) >= LEAST


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_it_applies_to_the_program_or_its_docs(copy, mutant):
    copy.apply(mutant, "--check")
    files = re.findall(r"^\+\+\+ b/(\S+)", mutant.path.read_text(), re.MULTILINE)
    assert files
    assert all(file.startswith(("gateway/", "docs/")) for file in files)


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_tests_that_it_names_are_there(mutant):
    for command in mutant.commands:
        program, *arguments = shlex.split(command)
        if program != "pytest":
            continue
        files = [ROOT / argument for argument in arguments if argument.startswith("tests/")]
        assert files
        texts = [file.read_text() for file in files if file.exists()]
        assert len(texts) == len(files)
        if "-k" in arguments:
            name = arguments[arguments.index("-k") + 1]
            assert any(re.search(rf"def \w*{name}", text) for text in texts), name


def test_a_patch_without_its_header_is_refused(tmp_path):
    patch = tmp_path / "x.patch"
    patch.write_text((MUTANTS / f"{ALL[0].name}.patch").read_text().replace("Promise:", "It says:"))
    with pytest.raises(MutantError, match="needs one line"):
        Mutant.read(patch)


def test_one_that_nothing_finds_survives_and_one_that_is_found_does_not(tmp_path):
    copy = Copy(tmp_path)
    (copy.root / "gateway" / "sum.py").write_text("def two():\n    return 2\n")
    (copy.root / "tests" / "test_sum.py").write_text(
        "from gateway.sum import two\n\n\ndef test_finds():\n    assert two() == 2\n\n\ndef test_sleeps():\n    two()\n"
    )
    patch = tmp_path / "sum.patch"
    patch.write_text(
        "Promise: two is two\n"
        + "".join(f"Caught by: pytest tests/test_sum.py -k {name}\n" for name in ("finds", "sleeps", "nonesuch"))
        + "--- a/gateway/sum.py\n+++ b/gateway/sum.py\n@@ -1,2 +1,2 @@\n def two():\n-    return 2\n+    return 3\n"
    )
    assert [result.caught for result in hunt(copy, Mutant.read(patch))] == [True, False, False]
    assert "return 2" in (copy.root / "gateway" / "sum.py").read_text()
    patch.write_text(patch.read_text().replace("return 2", "return 1"))
    with pytest.raises(MutantError, match="does not apply"):
        copy.apply(Mutant.read(patch), "--check")


def test_tests_are_run_in_one_go_to_see_that_they_pass_without_mutants():
    found = together(
        ["pytest a.py -k one", "kills --kills 2", "pytest b.py -k two", "pytest a.py -k one", "pytest c.py"]
    )
    assert found == ["pytest a.py b.py c.py -k 'one or two or c'", "kills --kills 2"]
