"""What Arrow's types mean, whatever form they have."""

import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type beneath dictionaries and extensions such as ``arrow.uuid``."""
    while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain type holds text."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Whether a plain type holds bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
