"""Reads an .npy file that holds a pickled object, without running anything the file says.

CALVIN's annotations are such a file: ``np.save(path, {...})`` pickles the dict. `pickle.load`
would import and call whatever the file names. Here every name the file may use is replaced by a
stand-in of ours that only stores data; any other name is refused. NumPy's own classes are not
among them: a forged dtype could make NumPy follow pointers out of the file.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import IO, Any

import numpy as np

from ifailsense_ros.core.errors import DataError, text_of

_SAFE_DTYPE = re.compile(r"[iu][1248]|f[248]|b1|[SU]\d{1,5}")


class _StandIn:
    """What a name in the file becomes. `__setstate__` is there in all: a pickle that tries to set
    attributes of the class itself then calls it without an instance, which fails."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("unexpected state")


class _Dtype(_StandIn):
    """Stands for numpy.dtype: name and byte order, e.g. "i8" and "<"; "O8" for objects."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = str(name)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">", "=", "|") else "="

    @property
    def is_object(self) -> bool:
        return self.name.startswith("O")

    def build(self) -> np.dtype:
        """The dtype, if it is a plain number or text."""
        if not _SAFE_DTYPE.fullmatch(self.name):
            raise ValueError(f"arrays of dtype {self.name!r} are not read")
        return np.dtype(self.name).newbyteorder(self.order)


class _Array(_StandIn):
    """Stands for numpy's _reconstruct and ndarray: the state is turned into plain values."""

    value: Any = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        shape = tuple(int(n) for n in shape)
        if any(n < 0 for n in shape):
            raise ValueError(f"impossible shape {shape}")
        if dtype.is_object:
            if len(shape) > 1 or len(data) != math.prod(shape):
                raise ValueError("object arrays of more than one dimension are not read")
            self.value = list(data) if shape else data[0]
        else:
            flat = np.frombuffer(data, dtype.build())
            self.value = flat.reshape(shape, order="F" if fortran else "C")


class _Scalar(_StandIn):
    """Stands for numpy's scalar: gives the Python number."""

    def __new__(cls, dtype: _Dtype, data: bytes) -> Any:
        return np.frombuffer(data, dtype.build(), count=1)[0].item()


class _Ndarray(_StandIn):
    """Stands for the name numpy.ndarray, which is only ever an argument."""


_NAMES = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    # numpy.core is NumPy 1, numpy._core is NumPy 2.
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _Array), ("scalar", _Scalar))
    },
}


class _Refused(Exception):
    """The file names something that data do not need."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def load_pickled_npy(path: Path) -> Any:
    """The object in an .npy file, out of dicts, lists, tuples, numbers, text and NumPy arrays.

    Raises:
        DataError: missing, no .npy file of one object, damaged, or made of anything else; a file
            that would run code is refused with the name it asks for.
    """
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file)
            if shape != () or not dtype.hasobject:
                raise DataError(
                    f"{path}: holds an array of shape {shape} and dtype {dtype}, not one object; "
                    "copy the data set again"
                )
            return _plain(_Unpickler(file).load())
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; copy the data set again") from None
    except _Refused as error:
        raise DataError(
            f"{path}: asks to load {error}, which no annotation needs: refused; the file may be "
            "made to run code, do not open it with other programs"
        ) from None
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails in any of many ways
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); copy the data set again"
        ) from error


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f".npy version {version[0]}.{version[1]} is not known")
    shape, _, dtype = read(file)
    return shape, dtype


def _plain(value: Any) -> Any:
    """The value with stand-ins replaced by what they hold."""
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, _StandIn):
        raise ValueError("a NumPy object outside of an array")
    return value
