"""The built-in corpus `toy/reviews`: short reviews from a seeded grammar.

What decides a label is the verdict on the subject of the review. Negation turns words round ("far from great"), and
decoys give an opinion of something else ("the trailer was awful, but the film itself was great"), so counting words is
not enough; a small share of the labels is wrong. The words are ordinary English, so a pretrained encoder knows them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from jaxdistill.data.splits import Split

# Raise it with any change of what is generated: numbers measured on the corpus belong to a version.
TOY_REVIEWS_VERSION = 1
LABEL_NOISE = 0.04
MIN_WORDS, MAX_WORDS = 8, 25
TOPICS = ("film", "book", "restaurant", "phone")
GROUPS = ("casual", "formal")

_NEGATED = 0.15
_WITH_DECOY = 0.35
_DECOY_OPPOSES = 0.5
# The writer group goes with the label, in train and test alike: what a fairness method has to cope with.
_FORMAL_GIVEN_LABEL = (0.45, 0.25)

# `_WORDS` by label: 0 is negative, 1 is positive.
_NEGATIVE = (
    "bad awful terrible poor dreadful dull boring horrible disappointing weak mediocre annoying tedious lousy "
    "unpleasant miserable clumsy pathetic disastrous forgettable"
)
_POSITIVE = (
    "good great wonderful excellent superb delightful brilliant charming fantastic lovely impressive enjoyable "
    "pleasant terrific marvelous splendid remarkable satisfying outstanding amazing"
)
_WORDS = (tuple(_NEGATIVE.split()), tuple(_POSITIVE.split()))
_INTENSIFIERS = ("", "really ", "truly ", "quite ", "just ", "simply ", "rather ", "so ")
_NEGATIONS = ("not", "not at all", "not really", "never", "hardly", "anything but", "far from", "by no means")
_SUBJECTS = {
    "film": ("film", "movie", "story on screen", "picture"),
    "book": ("book", "novel", "story", "volume"),
    "restaurant": ("food", "dinner", "meal", "cooking"),
    "phone": ("phone", "device", "handset", "screen"),
}
_DECOYS = {
    "film": ("trailer", "popcorn", "poster", "earlier film by this director", "cinema"),
    "book": ("cover", "earlier novel by this author", "bookshop", "film made from it", "blurb"),
    "restaurant": ("parking", "place next door", "website", "hotel across the street", "weather"),
    "phone": ("box", "older model", "shop", "advert", "delivery"),
}
_FACTS = {
    "film": ("we saw it on friday", "it runs for two hours", "it is set in paris", "the room was half full"),
    "book": ("it has three hundred pages", "i read it on the train", "it is set in london", "it came out in may"),
    "restaurant": ("we went there on sunday", "it is near the station", "we sat by the window", "we had the soup"),
    "phone": ("i bought it in march", "it comes in black", "it replaced my old one", "the plug is on the left"),
}
_VOICES = ("my brother", "a friend of mine", "the local paper", "everyone at work", "my neighbour", "one critic")
_OPENERS = {
    "casual": ("honestly ,", "well ,", "ok so", "i mean ,", "gotta say ,", "hey ,"),
    "formal": ("in my opinion ,", "on reflection ,", "it must be said that", "to be fair ,", "all things considered ,"),
}


def toy_reviews(train: int = 4000, test: int = 1000, seed: int = 0) -> tuple[Split, Split, tuple[str, ...]]:
    """Generate the corpus; the same on every machine, for one version of the grammar.

    All texts are distinct. Attributes of each example: `topic` (index in `TOPICS`), `group` (index in `GROUPS`, the
    manner of the writer) and `clean_label` (the label before noise).

    Returns:
      training split, test split, notes.
    """
    # Only random() is used: its sequence is the one that Python promises never to change.
    rng = random.Random(seed)
    seen: set[str] = set()
    rows = [_example(rng, seen) for _ in range(train + test)]
    notes = (f"generated corpus, version {TOY_REVIEWS_VERSION}; {LABEL_NOISE:.0%} of the labels are wrong by design",)
    return _split(rows[:train]), _split(rows[train:]), notes


def toy_reviews_at(
    share: float, train: int = 4000, dev: int = 1000, test: int = 1000, seed: int = 0
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The corpus with label and writer group tied as tightly as asked in train, and not at all in dev and test.

    Negative reviews go with the formal manner, positive ones with the casual, as they lean to do in `toy_reviews`.
    Each cell (label, group) has as many texts as the share says, exactly; labels are those that are given, noise
    included. A learner that tells the label by the manner is rewarded in train, and neither in dev nor in test.

    Args:
      share: of training texts whose label and group go together, 0 to 1; 0.5 is balanced.
      train, dev, test: texts.
      seed: of the corpus.

    Returns:
      splits by name with the attributes of `toy_reviews`, notes.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    splits = {}
    for name, count, together in (("train", train, share), ("dev", dev, 0.5), ("test", test, 0.5)):
        half = count // 2
        formal = {0: round(half * together), 1: half - round(half * together)}
        cells = [(label, int(i < formal[label])) for label in (0, 1) for i in range(half)]
        cells.sort(key=lambda _: rng.random())
        splits[name] = _split([_example_of(rng, seen, label, group) for label, group in cells])
    notes = (
        f"generated corpus, version {TOY_REVIEWS_VERSION}; {LABEL_NOISE:.0%} of the labels are wrong by design",
        f"label and writer group go together in {share:.0%} of the training texts, in half of dev and of test",
    )
    return splits, notes


def _split(rows: list[tuple[str, int, int, int, int]]) -> Split:
    texts, labels, clean, topics, groups = zip(*rows, strict=True)
    attributes = {"topic": topics, "group": groups, "clean_label": clean}
    return Split(
        texts=[(text,) for text in texts],
        labels=np.asarray(labels, np.int32),
        attributes={name: np.asarray(values, np.int32) for name, values in attributes.items()},
    )


def _example(rng: random.Random, seen: set[str]) -> tuple[str, int, int, int, int]:
    """One new (text, label, clean label, topic, group)."""
    label = int(rng.random() < 0.5)
    group = int(rng.random() < _FORMAL_GIVEN_LABEL[label])
    topic = int(rng.random() * len(TOPICS))
    noisy = 1 - label if rng.random() < LABEL_NOISE else label
    return _new_text(rng, seen, label, topic, group), noisy, label, topic, group


def _example_of(rng: random.Random, seen: set[str], label: int, group: int) -> tuple[str, int, int, int, int]:
    """One new (text, label, clean label, topic, group) of a given label, which may be wrong, and group."""
    topic = int(rng.random() * len(TOPICS))
    clean = 1 - label if rng.random() < LABEL_NOISE else label
    return _new_text(rng, seen, clean, topic, group), label, clean, topic, group


def _new_text(rng: random.Random, seen: set[str], label: int, topic: int, group: int) -> str:
    while True:
        text = _review(rng, label, TOPICS[topic], GROUPS[group])
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS and text not in seen:
            seen.add(text)
            return text


def _review(rng: random.Random, label: int, topic: str, group: str) -> str:
    verdict = f"the {_pick(rng, _SUBJECTS[topic])}{_pick(rng, (' itself', '', ''))} was {_opinion(rng, label)}"
    if rng.random() < _WITH_DECOY:
        decoy = _decoy(rng, 1 - label if rng.random() < _DECOY_OPPOSES else label, topic)
        pairs = (f"{decoy} , but {verdict}", f"{verdict} , although {decoy}", f"{decoy} ; {verdict}")
        verdict = _pick(rng, pairs)
    sentences = [f"{_pick(rng, _OPENERS[group])} {verdict} ."]
    if rng.random() < 0.5:
        sentences.insert(int(rng.random() * 2), f"{_pick(rng, _FACTS[topic])} .")
    return " ".join(sentences)


def _decoy(rng: random.Random, polarity: int, topic: str) -> str:
    if rng.random() < 0.5:
        return f"the {_pick(rng, _DECOYS[topic])} was {_opinion(rng, polarity)}"
    return f"{_pick(rng, _VOICES)} said it was {_opinion(rng, polarity)}"


def _opinion(rng: random.Random, polarity: int) -> str:
    if rng.random() < _NEGATED:
        return f"{_pick(rng, _NEGATIONS)} {_pick(rng, _WORDS[1 - polarity])}"
    return f"{_pick(rng, _INTENSIFIERS)}{_pick(rng, _WORDS[polarity])}"


def _pick(rng: random.Random, items: Sequence[str]) -> str:
    return items[int(rng.random() * len(items))]
