"""What the clients' own libraries read for administrators: of logs, producers, replicas and the quorum, and of what does
not exist on a new cluster."""

import pytest
from confluent_kafka import ElectionType, KafkaError
from confluent_kafka import TopicPartition as Place
from kafka import TopicPartition, errors
from kafka.admin import (
    ACLFilter, ACLOperation, ACLPermissionType, ACLResourcePatternType, KafkaAdminClient, ResourcePatternFilter,
    ResourceType,
)
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse

from harness import BASE_MS, COUNT, DEADLINE_S, HERE, PARTITIONS, unique
from reading import make_topic
from test_confluent import admin_of, error_of, produce
from wire import Wire, make, stored_batches


@pytest.fixture(scope="module")
def admin(broker):
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield client
    client.close()


@pytest.fixture(scope="module")
def topic(broker):
    topic = unique("reads")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "r", **{"enable.idempotence": True}) == []
    return topic


def test_log_dirs(admin, topic):
    (node,) = admin.describe_log_dirs({topic: [0, 1]})
    (directory,) = node["log_dirs"] if "log_dirs" in node else node["results"]
    assert 0 < directory["usable_bytes"] <= directory["total_bytes"]
    (told,) = directory["topics"]
    sizes = {p["partition_index"]: p["partition_size"] for p in told["partitions"]}
    assert set(sizes) == {0, 1} and all(size > 10_000 for size in sizes.values())


def test_producers(broker, admin, topic):
    places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    told = admin.describe_producers(places)
    for place in places:
        last = stored_batches(broker.bootstrap, topic, place.partition)[-1]
        (producer,) = told[place].active_producers
        assert (producer.producer_id, producer.producer_epoch) == (last.producer_id, 0)
        assert producer.last_sequence == COUNT // PARTITIONS - 1
        assert producer.last_timestamp == BASE_MS + (COUNT - PARTITIONS + place.partition) * 1000


def test_nothing_is_under_way(broker, admin, topic):
    assert admin.list_partition_reassignments() == {}
    assert not any(admin.list_transactions().values())
    with pytest.raises(errors.BrokerResponseError):
        admin.describe_producers([TopicPartition(topic, 77)])
    librdkafka = admin_of(broker)
    elected = librdkafka.elect_leaders(ElectionType.PREFERRED, [Place(topic, 0)]).result(DEADLINE_S)
    assert [error.code() for error in elected.values()] == [KafkaError.ELECTION_NOT_NEEDED]


def test_quorum(admin):
    told = admin.describe_metadata_quorum()
    (log,) = told["topics"][0]["partitions"]
    (voter,) = log["current_voters"]
    assert voter["replica_id"] == log["leader_id"] and log["observers"] == []
    assert voter["log_end_offset"] == log["high_watermark"] > 0
    assert [node["node_id"] for node in told["nodes"]] == [log["leader_id"]]


def test_config_resources(admin, topic):
    told = admin.list_config_resources()
    names = {str(getattr(kind, "name", kind)).upper(): names for kind, names in told.items()}
    assert topic in names["TOPIC"] and len(names["BROKER"]) == 1
    assert not names.get("CLIENT_METRICS") and not names.get("GROUP")


def test_security_is_off(broker, admin):
    every = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    with pytest.raises(errors.SecurityDisabledError):
        admin.describe_acls(ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, every))
    librdkafka = admin_of(broker)
    assert librdkafka.describe_user_scram_credentials().result(DEADLINE_S) == {}
    assert error_of(librdkafka.describe_user_scram_credentials(["u"])["u"]) == KafkaError.RESOURCE_NOT_FOUND


def test_the_document_tells_the_versions(broker):
    if broker.is_kafka is None:
        pytest.skip("it is not known whose broker this is")
    page = (HERE / "../../docs/api-versions.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page if line.startswith("| ")][1:]
    column = 3 if broker.is_kafka else 2
    told = {int(row[0]): row[column] for row in rows if row[column] != "-"}
    with Wire(broker.bootstrap) as wire:
        answer = wire.call(make(ApiVersionsRequest, 0), ApiVersionsResponse)
    heard = {k["api_key"]: sorted({k["min_version"], k["max_version"]}) for k in answer["api_keys"]}
    assert told == {key: "-".join(map(str, versions)) for key, versions in heard.items()}
