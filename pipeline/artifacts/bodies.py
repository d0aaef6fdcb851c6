"""The file that holds an artifact's numbers, and carries the document that describes them.

Two objects cannot be published at once. So the document travels in the metadata of this one file,
safetensors or Parquet, and the JSON beside it is a copy for people and programs to read: whoever
finds the file can write the JSON again, and no JSON can end up describing numbers of another fit.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.tables.frames import as_parquet
from spg_core.errors import CorruptStore

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
_CARRIED = "spg"


def encode_tensors(tensors: Mapping[str, "Tensor"], document: str) -> bytes:
    """Give tensors as a safetensors file that carries a document."""
    import safetensors.torch  # takes seconds, and a command may only want to know its options

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={_CARRIED: document})


def decode_tensors(data: bytes, where: str) -> Tensors:
    """Read the tensors of a safetensors file. Raises: CorruptStore."""
    import safetensors.torch

    try:
        return dict(safetensors.torch.load(data))
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise CorruptStore(f"{where} is not a safetensors file: {error}") from None


def encode_table(table: pa.Table, document: str) -> bytes:
    """Give a table as a Parquet file that carries a document."""
    return as_parquet(table.replace_schema_metadata({_CARRIED: document}))


def decode_rows(data: bytes, where: str) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file. Raises: CorruptStore."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CorruptStore(f"{where} is not a Parquet file: {error}") from None
    return rows


def carried_document(data: bytes, where: str) -> bytes:
    """Give the document that a file of numbers carries, as it is. Raises: CorruptStore."""
    metadata = _table_metadata(data, where) if data[:4] == b"PAR1" else _tensor_metadata(data)
    carried = metadata.get(_CARRIED)
    if carried is None:
        raise CorruptStore(
            f"{where} carries no description of itself: it is torn, or no file of this version"
        )
    return carried


def _table_metadata(data: bytes, where: str) -> dict[str, bytes]:
    try:
        found = pq.read_schema(pa.BufferReader(data)).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise CorruptStore(f"{where} is not a Parquet file: {error}") from None
    return {name.decode(errors="replace"): value for name, value in found.items()}


def _tensor_metadata(data: bytes) -> dict[str, bytes]:
    """Read the metadata in the header of a safetensors file; empty where there is none."""
    n_bytes = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + min(n_bytes, len(data))])
        return {name: value.encode() for name, value in header["__metadata__"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
