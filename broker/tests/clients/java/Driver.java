import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidRequestException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Runs the checks of Kafka's Java clients against one broker, and prints a line for each: {@code pass NAME} or
 * {@code fail NAME why}. Arguments: bootstrap address, prefix of topic names, timestamp of the first record, address of
 * a broker that creates no topics by itself ("" for none). The records are those of harness.py, which reads them back
 * with another client.
 */
public final class Driver {
    static final int COUNT = 300;
    static final Duration DEADLINE = Duration.ofSeconds(30);
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    final String bootstrap;
    final String prefix;
    final long baseMs;
    final String noAuto;
    final Admin admin;

    Driver(String[] args) {
        bootstrap = args[0];
        prefix = args[1];
        baseMs = Long.parseLong(args[2]);
        noAuto = args[3];
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    interface Check {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver(args);
        Map<String, Check> checks = new LinkedHashMap<>();
        for (String codec : CODECS) {
            checks.put("round_trip_" + codec, () -> driver.roundTrip(codec));
        }
        checks.put("not_idempotent", driver::notIdempotent);
        checks.put("seek", driver::seek);
        checks.put("topics", driver::topics);
        checks.put("refusals", driver::refusals);
        checks.put("configs", driver::configs);
        checks.put("broker_configs", driver::brokerConfigs);
        checks.put("offsets", driver::offsets);
        checks.put("too_large", driver::tooLarge);
        checks.put("auto_creation", driver::autoCreation);
        checks.put("auto_creation_off", driver::autoCreationOff);
        checks.put("partitioner", driver::partitioner);
        checks.put("long_poll", driver::longPoll);
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            try {
                check.getValue().run();
                System.out.println("pass " + check.getKey());
            } catch (Exception | AssertionError e) {
                StackTraceElement at = Arrays.stream(e.getStackTrace())
                        .filter(f -> f.getClassName().startsWith("Driver")).reduce((a, b) -> b.getMethodName()
                                .startsWith("lambda$main") || b.getMethodName().equals("main") ? a : b).orElse(null);
                System.out.println("fail " + check.getKey() + " " + e + " at " + at);
            }
        }
        driver.admin.close(Duration.ofSeconds(5));
    }

    // ---- records ----

    static byte[] payload(String tag, int i) {
        if (i % 25 == 24) {
            return null;
        }
        return i % 25 == 12 ? new byte[0] : utf8(tag + ":" + i + ":" + "abcdefghij".repeat(i * 131 % 200));
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    ProducerRecord<byte[], byte[]> record(String topic, String tag, int i) {
        RecordHeaders headers = new RecordHeaders();
        if (i % 5 == 0) {
            headers.add("h", utf8(String.valueOf(i))).add("empty", new byte[0]).add("null", null);
        }
        byte[] key = i % 10 == 0 ? null : utf8("k" + i % 7);
        return new ProducerRecord<>(topic, i % 2, baseMs + i * 1000L, key, payload(tag, i), headers);
    }

    void produce(String topic, String tag, String... settings) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < COUNT; i++) {
                sent.add(producer.send(record(topic, tag, i)));
            }
            producer.flush();
            for (int i = 0; i < COUNT; i++) {
                same(sent.get(i).get().offset(), (long) (i / 2));
            }
        }
    }

    static KafkaProducer<byte[], byte[]> producer(String address, String... settings) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", address);
        all.put("linger.ms", "20");
        for (int i = 0; i < settings.length; i += 2) {
            all.put(settings[i], settings[i + 1]);
        }
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** A consumer without a group. */
    KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        all.put("enable.auto.commit", "false");
        all.put("auto.offset.reset", "none");
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Reads `count` records of the partition from where the consumer stands, and checks each against its stream. */
    void readExactly(KafkaConsumer<byte[], byte[]> consumer, String tag, int count) {
        long end = System.nanoTime() + DEADLINE.toNanos();
        int got = 0;
        while (got < count) {
            check(System.nanoTime() < end, "only " + got + " of " + count + " records in time");
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                int i = (int) record.offset() * 2 + record.partition();
                ProducerRecord<byte[], byte[]> want = record(record.topic(), tag, i);
                same(record.timestamp(), want.timestamp());
                check(Arrays.equals(record.key(), want.key()), "key of " + i);
                check(Arrays.equals(record.value(), want.value()), "value of " + i);
                same(record.headers(), want.headers());
                got++;
            }
        }
        same(got, count);
    }

    // ---- checks ----

    void roundTrip(String codec) throws Exception {
        String topic = create(codec, 2, Map.of());
        produce(topic, codec, "compression.type", codec);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            List<TopicPartition> both = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
            consumer.assign(both);
            consumer.seekToBeginning(both);
            readExactly(consumer, codec, COUNT);
        }
    }

    void notIdempotent() throws Exception {
        String topic = create("plain", 2, Map.of());
        produce(topic, "plain", "enable.idempotence", "false", "acks", "1", "max.in.flight.requests.per.connection",
                "1");
    }

    void seek() throws Exception {
        String topic = create("seek", 2, Map.of());
        produce(topic, "seek", "batch.size", "2000");
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            var found = consumer.offsetsForTimes(Map.of(zero, baseMs, one, baseMs + 101_500));
            same(found.get(zero).offset(), 0L);
            same(found.get(one).offset(), 51L);
            same(found.get(one).timestamp(), baseMs + 103_000);
            same(consumer.offsetsForTimes(Map.of(zero, baseMs + COUNT * 1000L)).get(zero), null);
            same(consumer.beginningOffsets(List.of(zero)), Map.of(zero, 0L));
            same(consumer.endOffsets(List.of(zero, one)), Map.of(zero, 150L, one, 150L));
            consumer.assign(List.of(one));
            consumer.seek(one, 51);
            readExactly(consumer, "seek", 99);
            consumer.seek(one, 148);
            readExactly(consumer, "seek", 2);
            consumer.seek(one, 1000);
            refused(OffsetOutOfRangeException.class, () -> consumer.poll(DEADLINE));
        }
    }

    void topics() throws Exception {
        String topic = create("topics", 3, Map.of());
        TopicDescription described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        same(described.partitions().size(), 3);
        Uuid id = described.topicId();
        check(!id.equals(Uuid.ZERO_UUID), "a topic id");
        same(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name(), topic);
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
        eventually(() -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size()
                == 5);
        same(admin.describeCluster().nodes().get().size(), 1);
        check(!admin.describeCluster().clusterId().get().isEmpty(), "a cluster id");
        String dry = prefix + "-dry";
        admin.createTopics(List.of(new NewTopic(dry, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true))
                .all().get();
        check(!admin.listTopics().names().get().contains(dry), "validated only");
        admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        eventually(() -> !admin.listTopics().names().get().contains(topic));
        create("topics", 1, Map.of());
        Uuid again = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
        check(!again.equals(id), "a topic made anew has a new id");
    }

    void refusals() throws Exception {
        String topic = create("refusals", 2, Map.of());
        refused(TopicExistsException.class, () -> admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)))
                .all().get());
        refused(InvalidTopicException.class, () -> create("no/slashes", 1, Map.of()));
        refused(InvalidPartitionsException.class, () -> create("zero", 0, Map.of()));
        refused(InvalidReplicationFactorException.class, () -> admin.createTopics(
                List.of(new NewTopic(prefix + "-three", 1, (short) 3))).all().get());
        refused(InvalidConfigurationException.class, () -> create("bad", 1, Map.of("retention.ms", "soon")));
        refused(InvalidConfigurationException.class, () -> create("bad", 1, Map.of("no.such.key", "1")));
        refused(InvalidPartitionsException.class, () -> admin.createPartitions(
                Map.of(topic, NewPartitions.increaseTo(1))).all().get());
        refused(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(prefix + "-missing"))
                .all().get());
        refused(UnknownTopicOrPartitionException.class, () -> admin.describeTopics(List.of(prefix + "-missing"))
                .allTopicNames().get());
    }

    void configs() throws Exception {
        String topic = create("configs", 1, Map.of("segment.bytes", "2000000", "cleanup.policy", "delete"));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        ConfigEntry segment = config(resource).get("segment.bytes");
        same(segment.value(), "2000000");
        same(segment.source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        same(config(resource).get("retention.ms").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG);
        alter(resource, "retention.ms", "5000000", AlterConfigOp.OpType.SET);
        alter(resource, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        eventually(() -> config(resource).get("retention.ms").value().equals("5000000")
                && config(resource).get("cleanup.policy").value().equals("delete,compact"));
        alter(resource, "retention.ms", null, AlterConfigOp.OpType.DELETE);
        alter(resource, "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
        eventually(() -> config(resource).get("retention.ms").value().equals("604800000")
                && config(resource).get("cleanup.policy").value().equals("delete"));
        refused(InvalidConfigurationException.class,
                () -> alter(resource, "retention.ms", "soon", AlterConfigOp.OpType.SET));
        refused(InvalidConfigurationException.class,
                () -> alter(resource, "no.such.key", "1", AlterConfigOp.OpType.SET));
    }

    void brokerConfigs() throws Exception {
        String node = admin.describeCluster().nodes().get().iterator().next().idString();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.BROKER, node);
        Config config = config(resource);
        same(config.get("message.max.bytes").value(), "1048588");
        check(config.get("num.partitions").isReadOnly(), "num.partitions is read-only");
        check(!config.get("message.max.bytes").isReadOnly(), "message.max.bytes is dynamic");
        refused(InvalidRequestException.class,
                () -> alter(resource, "num.partitions", "3", AlterConfigOp.OpType.SET));
        alter(resource, "log.retention.ms", "700000000", AlterConfigOp.OpType.SET);
        eventually(() -> "700000000".equals(config(resource).get("log.retention.ms").value()));
        alter(resource, "log.retention.ms", null, AlterConfigOp.OpType.DELETE);
        eventually(() -> config(resource).get("log.retention.ms").value() == null);
    }

    void offsets() throws Exception {
        String topic = create("offsets", 2, Map.of());
        TopicPartition tp = new TopicPartition(topic, 1);
        same(offset(tp, OffsetSpec.maxTimestamp()), -1L);
        produce(topic, "offsets");
        same(offset(tp, OffsetSpec.earliest()), 0L);
        same(offset(tp, OffsetSpec.latest()), 150L);
        same(offset(tp, OffsetSpec.forTimestamp(baseMs + 100_500)), 50L);
        same(offset(tp, OffsetSpec.forTimestamp(baseMs + COUNT * 1000L)), -1L);
        same(offset(tp, OffsetSpec.maxTimestamp()), 149L);
        same(offset(tp, OffsetSpec.earliestLocal()), 0L);
        same(offset(tp, OffsetSpec.latestTiered()), -1L);
        same(admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(40))).lowWatermarks().get(tp).get()
                .lowWatermark(), 40L);
        same(offset(tp, OffsetSpec.earliest()), 40L);
        refused(org.apache.kafka.common.errors.OffsetOutOfRangeException.class,
                () -> admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(1000))).all().get());
        same(admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(-1))).lowWatermarks().get(tp).get()
                .lowWatermark(), 150L);
    }

    void tooLarge() throws Exception {
        String topic = create("large", 1, Map.of("max.message.bytes", "10000"));
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap)) {
            producer.send(new ProducerRecord<>(topic, new byte[9_000])).get();
            refused(RecordTooLargeException.class,
                    () -> producer.send(new ProducerRecord<>(topic, new byte[11_000])).get());
        }
    }

    void autoCreation() throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap)) {
            same(producer.send(new ProducerRecord<>(prefix + "-auto", utf8("v"))).get().offset(), 0L);
        }
    }

    void autoCreationOff() throws Exception {
        if (noAuto.isEmpty()) {
            return;
        }
        try (KafkaProducer<byte[], byte[]> producer = producer(noAuto, "max.block.ms", "1000")) {
            refused(TimeoutException.class,
                    () -> producer.send(new ProducerRecord<>(prefix + "-noauto", utf8("v"))).get());
        }
    }

    /**
     * Keyed records go where murmur2 says; those without a key go to a partition until a batch is full. Which one comes
     * then is chance alone: otherwise the producer shuns a partition that is slower than others (KIP-794). 8,000 records
     * make more than 300 choices among 11 partitions (4,000 made 150 changes), which leave none out.
     */
    void partitioner() throws Exception {
        String keyed = create("partitioner", 11, Map.of());
        String plain = create("partitioner-plain", 11, Map.of());
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "batch.size", "200", "linger.ms", "0",
                "partitioner.adaptive.partitioning.enable", "false")) {
            for (int i = 0; i < 500; i++) {
                producer.send(new ProducerRecord<>(keyed, utf8("key-" + i % 50), utf8(String.valueOf(i))));
            }
            for (int i = 0; i < 8000; i++) {
                producer.send(new ProducerRecord<>(plain, utf8(String.valueOf(i))));
            }
        }
    }

    /** A waiting fetch is answered by the record that arrives, and not by the end of its wait. */
    void longPoll() throws Exception {
        String topic = create("long-poll", 1, Map.of());
        TopicPartition tp = new TopicPartition(topic, 0);
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        all.put("fetch.max.wait.ms", "60000");
        all.put("request.timeout.ms", "90000");
        all.put("enable.auto.commit", "false");
        KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap)) {
            consumer.assign(Set.of(tp));
            consumer.seek(tp, 0);
            for (int i = 0; i < 5; i++) {
                same(consumer.poll(Duration.ofMillis(100)).count(), 0);
                producer.send(new ProducerRecord<>(topic, utf8("v" + i)));
                producer.flush();
                same(consumer.poll(DEADLINE).count(), 1);
            }
        } finally {
            consumer.close(CloseOptions.timeout(Duration.ZERO)); // else it waits for the fetch that waits
        }
    }

    // ---- tools ----

    /** A new topic whose partitions all answer: right after a creation, Kafka refuses some requests for a moment. */
    String create(String name, int partitions, Map<String, String> configs) throws Exception {
        String topic = prefix + "-" + name;
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
        Map<TopicPartition, OffsetSpec> all = new HashMap<>();
        for (int i = 0; i < partitions; i++) {
            all.put(new TopicPartition(topic, i), OffsetSpec.latest());
        }
        admin.listOffsets(all).all().get();
        return topic;
    }

    Config config(ConfigResource resource) throws Exception {
        return admin.describeConfigs(List.of(resource)).all().get().get(resource);
    }

    void alter(ConfigResource resource, String key, String value, AlterConfigOp.OpType op) throws Exception {
        Collection<AlterConfigOp> ops = List.of(new AlterConfigOp(new ConfigEntry(key, value), op));
        admin.incrementalAlterConfigs(Map.of(resource, ops)).all().get();
    }

    long offset(TopicPartition tp, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(tp, spec)).partitionResult(tp).get().offset();
    }

    static void eventually(Callable<Boolean> probe) throws Exception {
        long end = System.nanoTime() + DEADLINE.toNanos();
        while (!probe.call()) {
            check(System.nanoTime() < end, "not in time");
            Thread.sleep(10);
        }
    }

    static void refused(Class<? extends Throwable> kind, Check work) {
        Throwable got = null;
        try {
            work.run();
        } catch (ExecutionException e) {
            got = e.getCause();
        } catch (Exception e) {
            got = e;
        }
        check(kind.isInstance(got), "wanted " + kind.getSimpleName() + ", got " + got);
    }

    static void same(Object got, Object want) {
        check(Objects.equals(got, want), "got " + got + ", want " + want);
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
