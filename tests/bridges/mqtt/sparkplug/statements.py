"""The statements of Sparkplug 3.0.0 on edge nodes by their ids, without `tck-id-`; a test names those it checks.

docs/reference/sparkplug-conformance.md lists them all: those that a test checks, and those that do not apply, each
with why.
"""

_TREE = {
    "intro": "group-id-string group-id-chars edge-node-id-string edge-node-id-chars device-id-string device-id-chars "
    "edge-node-id-uniqueness",
    "principles": "rbe-recommended birth-certificates-order persistence-clean-session-311 persistence-clean-session-50",
    "topic": "structure structure-namespace-a structure-namespace-valid-group-id "
    "structure-namespace-unique-edge-node-descriptor structure-namespace-valid-edge-node-id "
    "structure-namespace-valid-device-id structure-namespace-unique-device-id "
    "structure-namespace-duplicate-device-id-across-edge-node "
    "structure-namespace-device-id-associated-message-types "
    "structure-namespace-device-id-non-associated-message-types",
    "topics-nbirth": "topic mqtt seq-num timestamp metric-reqs metrics templates bdseq-included bdseq-matching "
    "bdseq-increment rebirth-metric",
    "topics-ndata": "topic mqtt seq-num timestamp payload",
    "topics-ndeath": "topic payload seq",
    "topics-ncmd": "topic",
    "topics-dbirth": "topic mqtt seq timestamp metric-reqs metrics",
    "topics-ddata": "topic mqtt seq-num timestamp payload",
    "topics-ddeath": "topic mqtt seq-num",
    "topics-dcmd": "topic",
    "case-sensitivity": "sparkplug-ids metric-names",
    "message-flow-edge-node": "ncmd-subscribe",
    "message-flow-edge-node-birth-publish": "connect will-message will-message-topic will-message-payload "
    "will-message-payload-bdSeq will-message-qos will-message-will-retained phid-wait phid-wait-id phid-wait-online "
    "phid-wait-timestamp phid-offline nbirth-topic nbirth-payload nbirth-payload-bdSeq nbirth-qos nbirth-retained "
    "nbirth-payload-seq",
    "message-flow-device": "dcmd-subscribe",
    "message-flow-device-birth-publish": "nbirth-wait dbirth-topic dbirth-match-edge-node-topic dbirth-payload "
    "dbirth-qos dbirth-retained dbirth-payload-seq",
    "operational-behavior": "device-ddeath edge-node-birth-sequence-wait",
    "operational-behavior-edge-node": "intentional-disconnect-ndeath intentional-disconnect-packet "
    "termination-host-offline termination-host-offline-reconnect termination-host-offline-timestamp",
    "operational-behavior-primary-application-state-with-multiple-servers": "single-server walk",
    "operational-behavior-data-publish": "nbirth nbirth-values nbirth-change nbirth-order dbirth dbirth-values "
    "dbirth-change dbirth-order",
    "operational-behavior-data-commands-rebirth": "name name-aliases datatype value action-1 action-2 action-3",
    "payloads": "timestamp-in-UTC sequence-num-always-included sequence-num-req-nbirth sequence-num-incrementing "
    "name-requirement alias-uniqueness alias-birth-requirement alias-data-cmd-requirement "
    "name-birth-data-requirement metric-timestamp-in-UTC metric-datatype-value-type metric-datatype-value "
    "metric-datatype-req metric-datatype-not-req propertyset-keys-array-size propertyset-values-array-size "
    "metric-propertyvalue-type-type metric-propertyvalue-type-value metric-propertyvalue-type-req "
    "propertyset-quality-value-type propertyset-quality-value-value",
    "payloads-dataset": "column-size column-num-headers types-def types-num types-type types-value parameter-type-req",
    "payloads-template": "dataset-value definition-nbirth-only definition-is-definition definition-ref "
    "definition-members definition-nbirth definition-parameters definition-parameters-default "
    "instance-is-definition instance-ref instance-members instance-members-birth instance-members-data "
    "instance-parameters version ref-definition ref-instance is-definition is-definition-definition "
    "is-definition-instance parameter-name-required parameter-name-type parameter-value-type parameter-type-value "
    "parameter-type-req parameter-value",
    "payloads-nbirth": "timestamp edge-node-descriptor seq bdseq bdseq-repeat rebirth-req qos retain",
    "payloads-dbirth": "timestamp seq seq-inc order qos retain",
    "payloads-ndata": "timestamp seq seq-inc order qos retain",
    "payloads-ddata": "timestamp seq seq-inc order qos retain",
    "payloads-ndeath": "seq will-message will-message-qos will-message-retain bdseq will-message-publisher "
    "will-message-publisher-disconnect-mqtt311 will-message-publisher-disconnect-mqtt50",
    "payloads-ddeath": "timestamp seq seq-inc seq-number",
}

EDGE_NODE = frozenset(f"{prefix}-{name}" for prefix, names in _TREE.items() for name in names.split())


def checks(*ids):
    """Say which statements the decorated test checks."""
    assert ids
    assert set(ids) <= EDGE_NODE, set(ids) - EDGE_NODE
    return lambda test: test
