import sys

import pytest

from tests.helpers import run_python

PROGRAM = """
import os, sys
from experiments.memory import use_huge_pages
before = os.environ.get("GLIBC_TUNABLES", "")
use_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), before == os.environ.get("GLIBC_TUNABLES"))
"""

COMPILER = """
import ctypes, jax
from experiments.memory import return_memory_after_compiling
class Libc:
    def malloc_trim(self, pad):
        trims.append(pad)
trims = []
ctypes.CDLL = lambda name: Libc()
return_memory_after_compiling()
f = jax.jit(lambda x: x + 1)
f(1.0), f(2.0)
print(trims)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="huge pages are asked for on Linux alone")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_a_program_starts_again_with_huge_pages_once(before, after):
    # What is printed comes from the second start, which finds the setting in place.
    assert run_python(PROGRAM, GLIBC_TUNABLES=before).split() == [after, "True"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is handed back on Linux alone")
def test_memory_goes_back_after_each_compilation():
    assert run_python(COMPILER).strip() == "[0]"  # two calls, one compilation
