"""The same tokens as public loaders store and shuffle them: raw float16, a sample being an image.

A sample may also be a run of a few tokens, which mixes better and costs more. Each maker writes a
folder once and gives a function: epoch number -> iterator of samples `(token, dim)`, in the order
in which the library shuffles. A maker raises ImportError where its
library is missing (`benchmarks.reading` says how to get them).
"""

import importlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Tokens = NDArray[np.float16]
Epoch = Callable[[int], Iterator[Tokens]]
Maker = Callable[[Path, Tokens, int], Epoch]
"""(empty folder, tokens `(sample, token, dim)`, samples in the library's shuffle buffer)."""

FILE_BYTES = 103_000_000


def per_file(tokens: Tokens) -> int:
    """Give the samples of a file, chunk or tar: those of 64 images."""
    return max(1, FILE_BYTES * len(tokens) // tokens.nbytes)


class _ZarrImages(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, path: Path) -> None:
        import zarr

        self._array: Any = zarr.open_array(path, mode="r")

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self._array[row])


def zarr_python(folder: Path, tokens: Tokens, _: int, n_workers: int = 2) -> Epoch:
    """zarr-python and torch's DataLoader: every image in a global permutation."""
    import zarr

    step = per_file(tokens)
    array = zarr.create_array(
        folder / "a.zarr",
        shape=tokens.shape,
        shards=(step, *tokens.shape[1:]),
        chunks=(1, *tokens.shape[1:]),
        dtype="float16",
        compressors=None,
    )
    for first in range(0, len(tokens), step):
        array[first : first + step] = tokens[first : first + step]
    images = _ZarrImages(folder / "a.zarr")

    def epoch(number: int) -> Iterator[Tokens]:
        loader = torch.utils.data.DataLoader(
            images,
            batch_size=None,
            sampler=torch.utils.data.RandomSampler(
                images, generator=torch.Generator().manual_seed(number)
            ),
            num_workers=n_workers,
        )
        return (image.numpy() for image in loader)

    return epoch


def hf_datasets(folder: Path, tokens: Tokens, _: int) -> Epoch:
    """Hugging Face datasets: Arrow on disk, mapped; rows in a global permutation."""
    datasets = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    width = int(np.prod(tokens.shape[1:]))
    feature = datasets.Sequence(datasets.Value("float16"), length=width)
    writing = importlib.import_module("datasets.arrow_writer")
    path = str(folder / "tokens.arrow")
    features = datasets.Features({"tokens": feature})
    with writing.ArrowWriter(
        path=path, features=features, writer_batch_size=max(1, (1 << 25) // tokens[0].nbytes)
    ) as output:
        for image in tokens:
            output.write({"tokens": image.reshape(-1)})
        output.finalize()
    stored = datasets.Dataset.from_file(path).with_format("numpy")

    def epoch(number: int) -> Iterator[Tokens]:
        for row in stored.shuffle(seed=number, keep_in_memory=True):
            yield row["tokens"].reshape(tokens.shape[1:])

    return epoch


def litdata(folder: Path, tokens: Tokens, _: int) -> Epoch:
    """litdata: chunks of 64 images, chunks and images within them shuffled."""
    writer = importlib.import_module("litdata.streaming.writer")
    library = importlib.import_module("litdata")
    output = writer.BinaryWriter(str(folder), chunk_size=per_file(tokens))
    for row, image in enumerate(tokens):
        output.add_item(row, {"tokens": image})
    output.done()
    output.merge()
    stored = library.StreamingDataset(str(folder), shuffle=True, seed=0)

    def epoch(number: int) -> Iterator[Tokens]:
        stored.set_epoch(number)
        for item in stored:
            yield np.asarray(item["tokens"])

    return epoch


def mosaicml(folder: Path, tokens: Tokens, buffer: int) -> Epoch:
    """mosaicml-streaming: shards of 64 images, algorithm py1e over the buffer."""
    library = importlib.import_module("streaming")
    shape = ",".join(map(str, tokens.shape[1:]))
    limit = FILE_BYTES
    with library.MDSWriter(
        out=str(folder), columns={"tokens": f"ndarray:float16:{shape}"}, size_limit=limit
    ) as output:
        for image in tokens:
            output.write({"tokens": image})
    stored = library.StreamingDataset(
        local=str(folder),
        shuffle=True,
        shuffle_algo="py1e",
        shuffle_block_size=buffer,
        batch_size=1,
        num_canonical_nodes=1,
    )

    def epoch(_: int) -> Iterator[Tokens]:
        for item in stored:
            yield item["tokens"]

    return epoch


def webdataset(folder: Path, tokens: Tokens, buffer: int) -> Epoch:
    """webdataset: tar files of 64 images, files permuted, images through the buffer."""
    library = importlib.import_module("webdataset")
    paths, step = [], per_file(tokens)
    for first in range(0, len(tokens), step):
        paths.append(str(folder / f"{first:06d}.tar"))
        with tarfile.open(paths[-1], "w") as tar:
            for row, image in enumerate(tokens[first : first + step], first):
                entry = tarfile.TarInfo(f"{row:08d}.bin")
                entry.size = image.nbytes
                tar.addfile(entry, io.BytesIO(image.tobytes()))

    def epoch(number: int) -> Iterator[Tokens]:
        stored = library.WebDataset(
            paths, shardshuffle=len(paths), seed=number, empty_check=False
        ).shuffle(buffer)
        for item in stored:
            yield np.frombuffer(item["bin"], np.float16).reshape(tokens.shape[1:])

    return epoch


PEERS: dict[str, Maker] = {
    "zarr-python + DataLoader": zarr_python,
    "HF datasets": hf_datasets,
    "litdata": litdata,
    "mosaicml-streaming": mosaicml,
    "webdataset": webdataset,
}
