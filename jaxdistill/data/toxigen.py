"""Of whom the sentences of ToxiGen (Hartvigsen et al. 2022) speak, in the categories of UniDetox (Lu et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from jaxdistill.core.errors import UserError

# `target_group` of the annotated splits, in all spellings that occur there.
TOXIGEN_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gender_lgbtq": ("women", "lgbtq", "lgbtq+ folks"),
        "race_nationalities": (
            *("black", "black folks / african-americans", "black/african-american folks"),
            *("asian", "asian folks", "latino", "latino/hispanic folks", "chinese", "chinese folks"),
            *("mexican", "mexican folks", "middle_east", "middle eastern folks"),
            *("native_american", "native american/indigenous folks", "native american folks"),
        ),
        "religion": ("jewish", "jewish folks", "muslim", "muslim folks"),
        "disability": (
            *("mental_dis", "folks with mental disabilities"),
            *("physical_dis", "folks with physical disabilities"),
        ),
    }
)
# By group.
TOXIGEN_CATEGORIES: Mapping[str, str] = MappingProxyType(
    {group: category for category, groups in TOXIGEN_GROUPS.items() for group in groups}
)


def toxigen_category(target_group: str) -> str:
    """The category of a `target_group` of ToxiGen.

    Raises:
      UserError: it is none of the annotated splits' groups.
    """
    if target_group not in TOXIGEN_CATEGORIES:
        raise UserError(f"ToxiGen has no target_group {target_group!r}: accepted are {', '.join(TOXIGEN_CATEGORIES)}")
    return TOXIGEN_CATEGORIES[target_group]
