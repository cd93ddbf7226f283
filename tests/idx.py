"""Files of arrays as MNIST has them."""

import struct

CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx(a):
    """The bytes of an IDX file."""
    header = struct.pack(">HBB", 0, CODES[a.dtype.name], a.ndim)
    shape = struct.pack(f">{a.ndim}I", *a.shape)
    return header + shape + a.astype(a.dtype.newbyteorder(">")).tobytes()
