"""The protobuf messages of Sparkplug B, as far as the gateway speaks them.

Built from the field numbers and types of the specification (Sparkplug 3.0 §6.4.1), which are facts of the wire,
rather than from its schema file, which is licensed text. Fields that are not here (data sets, templates, files)
are skipped when read.
"""

from enum import IntEnum
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


class DataType(IntEnum):
    """Numbers of data types that we publish (Sparkplug 3.0 §6.4.16)."""

    INT32 = 3
    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


SIGNED_32: Final = (1, 2, 3)
"""Int8, Int16, Int32: sent as two's complement in `int_value` (Sparkplug 3.0 §6.4.17)."""
SIGNED_64: Final = (4,)
"""Int64: likewise in `long_value`."""

_PACKAGE: Final = "sems_gateway.sparkplug"
_TYPES: Final = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}
_Row = tuple[int, str, str]
"""Number, name, type: one of the above or a message; `*` after it: repeated, `|`: one of the values."""

_MESSAGES: Final[dict[str, tuple[_Row, ...]]] = {
    "PropertyValue": (
        (1, "type", "uint32"),
        (2, "is_null", "bool"),
        (3, "int_value", "uint32|"),
        (4, "long_value", "uint64|"),
        (5, "float_value", "float|"),
        (6, "double_value", "double|"),
        (7, "boolean_value", "bool|"),
        (8, "string_value", "string|"),
    ),
    "PropertySet": (
        (1, "keys", "string*"),
        (2, "values", "PropertyValue*"),
    ),
    "Metric": (
        (1, "name", "string"),
        (2, "alias", "uint64"),
        (3, "timestamp", "uint64"),
        (4, "datatype", "uint32"),
        (5, "is_historical", "bool"),
        (6, "is_transient", "bool"),
        (7, "is_null", "bool"),
        (9, "properties", "PropertySet"),
        (10, "int_value", "uint32|"),
        (11, "long_value", "uint64|"),
        (12, "float_value", "float|"),
        (13, "double_value", "double|"),
        (14, "boolean_value", "bool|"),
        (15, "string_value", "string|"),
        (16, "bytes_value", "bytes|"),
    ),
    "Payload": (
        (1, "timestamp", "uint64"),
        (2, "metrics", "Metric*"),
        (3, "seq", "uint64"),
        (4, "uuid", "string"),
        (5, "body", "bytes"),
    ),
}


def _classes() -> tuple[Any, Any]:
    # proto2, for there a field that is not set can be told from a zero.
    file = FileDescriptorProto(name="sems_gateway/sparkplug.proto", package=_PACKAGE, syntax="proto2")
    for name, rows in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, type_ in rows:
            field = message.field.add(name=field_name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if type_.endswith("*") else field.LABEL_OPTIONAL
            if type_.endswith("|"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                field.oneof_index = 0
            plain = type_.rstrip("*|")
            if plain in _TYPES:
                field.type = _TYPES[plain]
            else:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{plain}"
    # A pool of our own, so that another library's Sparkplug schema in this process is no conflict.
    pool = DescriptorPool()
    pool.Add(file)
    payload, properties = (pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in ("Payload", "PropertySet"))
    return GetMessageClass(payload), GetMessageClass(properties)


Payload, PropertySet = _classes()
"""Message classes. Their attributes are the fields above."""
