"""The restricted reader of torch's zip format."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.models.torch_file import read_torch_file


@pytest.mark.needs_torch
def test_reads_a_state_dict(tmp_path):
    import torch

    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = collections.OrderedDict(
        plain=base,
        transposed=base.T,
        tail=base[1:, 2:],
        scalar=torch.tensor(2.5, dtype=torch.float64),
        half=base.half(),
        brain=base.bfloat16(),
        whole=torch.tensor([1, -2]),
        flags=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base).data,
    )
    torch.save(state, tmp_path / "pytorch_model.bin")
    read = read_torch_file(tmp_path / "pytorch_model.bin")
    assert list(read) == list(state)
    for name, value in state.items():
        expected = value.float().numpy() if name == "brain" else value.numpy()
        assert read[name].shape == expected.shape
        np.testing.assert_array_equal(read[name].astype(expected.dtype), expected)
    assert read["scalar"].dtype == np.float64 and read["whole"].dtype == np.int64


@pytest.mark.needs_torch
def test_a_bin_folder_equals_a_safetensors_folder(tmp_path):
    import jax
    import torch
    from safetensors.torch import load_file

    from jaxdistill.models.config import EncoderConfig
    from jaxdistill.models.encoder import Encoder, init_params
    from jaxdistill.models.huggingface import load_folder, save_folder

    config = EncoderConfig(vocabulary=20, width=8, layers=1, heads=2, intermediate=12, positions=10)
    folder = tmp_path / "model"
    save_folder(folder, config, init_params(Encoder(config, 2), jax.random.key(0)))
    expected = load_folder(folder).params
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    jax.tree.map(np.testing.assert_array_equal, load_folder(folder).params, expected)


def write(path, payload: bytes, storages: dict[str, bytes] | None = None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        for key, raw in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


class RunsCode:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_refuses_code(tmp_path):
    trace = tmp_path / "trace"
    path = write(tmp_path / "evil.bin", pickle.dumps({"weight": RunsCode(f"touch {trace}")}))
    with pytest.raises(UserError, match=r"refused, its pickle asks for \w+\.system"):
        read_torch_file(path)
    assert not trace.exists()


def tensor_pickle(size: int, stride: int, offset: int = 0) -> bytes:
    """A state dict {"w": tensor} over storage "0" of 4 floats, as torch writes it."""
    return (
        b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"
        + b"K%c(K%ct" % (offset, size)
        + b"(K%ct\x89ccollections\nOrderedDict\n)RtRs." % stride
    )


def test_reads_without_torch(tmp_path):
    raw = np.array([1, 2, 3, 4], np.float32).tobytes()
    read = read_torch_file(write(tmp_path / "a.bin", tensor_pickle(2, 2, 1), {"0": raw}))
    np.testing.assert_array_equal(read["w"], np.array([2, 4], np.float32))


@pytest.mark.parametrize(
    ("payload", "raw", "message"),
    [
        (tensor_pickle(4, 2), b"\0" * 16, "a tensor reaches element 6 of a storage of 4"),
        (tensor_pickle(4, 1), b"\0" * 8, "storage 0 holds 2 of 4 elements"),
        (tensor_pickle(4, 1)[:-9], b"\0" * 16, "refused|damaged"),
        (pickle.dumps([1, 2]), b"", "holds something other than a flat dict of tensors"),
        (pickle.dumps({"w": "text"}), b"", "holds something other than a flat dict of tensors"),
        (b"", b"", "damaged torch file"),
    ],
)
def test_refuses_damage(tmp_path, payload, raw, message):
    with pytest.raises(UserError, match=message) as caught:
        read_torch_file(write(tmp_path / "a.bin", payload, {"0": raw}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\x80\x02legacy", "not a torch file in the zip format"), (None, "no data.pkl inside")]
)
def test_refuses_other_formats(tmp_path, content, message):
    path = tmp_path / "a.bin"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", "x")
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_torch_file(path)
