"""Package metadata and dependencies; `requirements.lock` holds one exact set of them that is known to work."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "jaxdistill/__init__.py").read_text(), re.MULTILINE)[1]
README = ROOT / "README.md"

REQUIREMENTS = [
    "jax>=0.10.2,<0.12",
    "flax>=0.12.8,<0.14",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12,<0.14",
    "chex>=0.1.92,<0.2",
    "jaxtyping>=0.3.11,<0.4",
    "numpy>=2.2,<3",
    "absl-py>=2.3,<3",
    "transformers>=5,<6",
    "tokenizers>=0.22,<0.24",
    "huggingface_hub>=1,<3",
    "safetensors>=0.6,<0.9",
    "datasets>=5,<6",
    "pyarrow>=21",
    "scikit-learn>=1.7,<2",
    "dp-accounting>=0.6,<0.7",
    "matplotlib>=3.10,<4",
    "tensorboardX>=2.6.4,<3",
    "tqdm>=4.67,<5",
]
TEST = [
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    "beartype>=0.22,<0.24",
    "ruff>=0.17,<0.18",
    "pyright[nodejs]>=1.1.414,<1.2",
]
PARITY = ["torch==2.13.0"]

setup(
    name="jaxdistill",
    version=VERSION,
    description="Distil a large text data set into a tiny synthetic one that trains a model almost as well, in JAX",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["jaxdistill", "jaxdistill.*", "experiments", "experiments.*"]),
    python_requires=">=3.11",
    install_requires=REQUIREMENTS,
    extras_require={
        "test": TEST,
        "parity": PARITY,
        "cuda": ["jax[cuda13]>=0.10.2,<0.12"],
        "tpu": ["jax[tpu]>=0.10.2,<0.12"],
        "dev": [*TEST, *PARITY],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
