"""From prompts to valid strings."""

from __future__ import annotations

import jax
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from jaxdistill.core.errors import UserError
from jaxdistill.generation.batches import sample
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.texts import generate_texts

KEY = jax.random.key(0)
START = 18
SAMPLING = Sampling(6, banned=(START,), stop=(19,))


@pytest.fixture(scope="module")
def tokenizer():
    """Letters a to r, and a start and an end token."""
    letters = {chr(ord("a") + i): i for i in range(18)}
    found = Tokenizer(models.WordLevel({**letters, "<start>": START, "<end>": 19}, unk_token="a"))
    found.pre_tokenizer, found.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    found.add_special_tokens(["<start>", "<end>"])
    return found


def letters(tokens):
    return "".join(chr(ord("a") + i) for i in tokens)


def unless(bad):
    """The text, `None` for one of the bad ones."""
    return lambda tokens: None if letters(tokens) in bad else letters(tokens)


@pytest.fixture(scope="module")
def generate(base, tokenizer):
    def run(prompts=START, count=6, **changes):
        given = {"sampling": SAMPLING, "key": KEY, "micro_batch": 6} | changes
        return generate_texts(base.model, base.params, tokenizer, prompts, count, **given)

    return run


def test_texts(base, generate):
    found = generate()
    drawn = sample(base.model, base.params, [[START]], 6, SAMPLING, jax.random.fold_in(KEY, 0), micro_batch=6)
    for text, ids, stopped, tokens, length in zip(
        found.texts, found.token_ids, found.stopped, drawn.token_ids, drawn.lengths, strict=True
    ):
        assert list(ids) == tokens[:length].tolist() and stopped == (length < 6)
        assert text == letters(ids)
    assert (found.rejected, found.drawn_tokens) == (0, drawn.drawn_tokens)
    assert found.tokens_per_second == found.drawn_tokens / found.seconds
    again = generate()
    assert again.texts == found.texts and again.compile_seconds < 0.5


def test_prompts_may_be_texts(base, generate):
    found = generate(["ab", "c"], 3)
    assert found.texts == generate([[0, 1], [2]], 3).texts
    assert generate("ab", 3).texts == generate([[0, 1]], 3).texts
    assert len(set(found.texts)) > 1


def test_texts_that_are_not_valid_are_drawn_again(generate, capsys):
    first = generate().texts
    bad = first[2]
    assert first.count(bad) == 1
    found = generate(read=unless({bad}), label="sampling")
    assert found.rejected == 1
    assert found.texts[2] != bad and [t for i, t in enumerate(found.texts) if i != 2] == [*first[:2], *first[3:]]
    assert "sampling 6/6" in capsys.readouterr().err


def test_several_prompts_drawn_again(generate):
    # One text of the first prompt is missing and two of the second.
    first = generate(["ab", "c"], 3).texts
    bad = {first[0], first[4], first[5]}
    found = generate(["ab", "c"], 3, read=unless(bad))
    assert found.rejected == 3 and not bad & set(found.texts)
    assert [found.texts[i] for i in (1, 2, 3)] == [first[i] for i in (1, 2, 3)]


def test_gives_up_after_as_many_rejections_as_texts(generate):
    seen = []
    with pytest.raises(UserError, match="6 texts were not valid while 6 were asked for, 0 of which were found"):
        generate(read=seen.append)
    assert len(seen) == 6


@pytest.mark.parametrize(("prompts", "count"), [(START, 0), ([], 2)])
def test_refuses_to_draw_nothing(generate, prompts, count):
    with pytest.raises(UserError, match="at least one of both is needed"):
        generate(prompts, count)
