// Runs the checks of kafkajs against one broker, and prints a line for each: `pass NAME` or `fail NAME why`.
// Arguments: bootstrap address, prefix of topic names, timestamp of the first record, address of a broker that creates
// no topics by itself ('' for none). The records are those of harness.py, which reads them back with another client.
'use strict'
const assert = require('node:assert')
const {
  CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel,
} = require('kafkajs')
const lz4 = require('lz4-napi')
const snappy = require('kafkajs-snappy')
const zstd = require('@bokuweb/zstd-wasm')

const [bootstrap, prefix, baseText, noAuto] = process.argv.slice(2)
const BASE_MS = Number(baseText)
const COUNT = 300

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer), // independent blocks: Kafka refuses dependent ones
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})
const CODECS = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}

const kafka = client(bootstrap)
const admin = kafka.admin()
const topicOf = name => `${prefix}-${name}`

function client(address, retries = 5) {
  return new Kafka({ clientId: 'kafkajs', brokers: [address], logLevel: logLevel.NOTHING, retry: { retries } })
}

function payload(tag, i) {
  if (i % 25 === 24) return null
  if (i % 25 === 12) return Buffer.alloc(0)
  return Buffer.from(`${tag}:${i}:${'abcdefghij'.repeat((i * 131) % 200)}`)
}

function messages(tag) {
  return Array.from({ length: COUNT }, (_, i) => ({
    partition: i % 2,
    timestamp: String(BASE_MS + i * 1000),
    key: i % 10 === 0 ? null : `k${i % 7}`,
    value: payload(tag, i),
    headers: i % 5 === 0 ? { h: String(i), empty: Buffer.alloc(0) } : {},
  }))
}

async function withProducer(options, work) {
  const producer = (options.kafka || kafka).producer({ createPartitioner: Partitioners.DefaultPartitioner, ...options })
  await producer.connect()
  try {
    return await work(producer)
  } finally {
    await producer.disconnect()
  }
}

async function produce(topic, tag, options = {}, size = 75) {
  await withProducer(options, async producer => {
    const all = messages(tag)
    for (let at = 0; at < all.length; at += size) {
      const [sent] = await producer.send({
        topic, acks: -1, compression: options.compression, messages: all.slice(at, at + size),
      })
      assert.strictEqual(sent.errorCode, 0)
    }
  })
}

/** Creates a topic, and waits until its partitions answer: for a moment, Kafka refuses some requests. */
async function create(topic, numPartitions = 2, configs = {}) {
  const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, configEntries }] })
  await eventually(async () => {
    try {
      return await admin.fetchTopicOffsets(topic)
    } catch (error) {
      if (error.retriable) return false
      throw error
    }
  })
}

async function eventually(probe) {
  const end = Date.now() + 30_000
  while (!(await probe())) {
    assert(Date.now() < end, `not within 30 s: ${probe}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

/** The `type` of the Kafka error that the promise is refused with. */
async function refusal(promise) {
  try {
    await promise
  } catch (error) {
    const first = error.errors ? error.errors[0] : error.cause && error.cause.type ? error.cause : error
    return first.type || first.name
  }
  return 'no error'
}

async function configOf(topic, name) {
  const described = await admin.describeConfigs({
    includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: [name] }],
  })
  return described.resources[0].configEntries[0].configValue
}

const checks = {
  async topics() {
    const topic = topicOf('topics')
    await create(topic, 3)
    const { topics: [metadata] } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.deepStrictEqual(metadata.partitions.map(p => p.partitionId).sort(), [0, 1, 2])
    assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false, 'exists')
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    await eventually(async () => {
      const { topics: [now] } = await admin.fetchTopicMetadata({ topics: [topic] })
      return now.partitions.length === 5
    })
    const cluster = await admin.describeCluster()
    assert.strictEqual(cluster.brokers.length, 1)
    assert(cluster.clusterId)
    await admin.deleteTopics({ topics: [topic] })
    await eventually(async () => !(await admin.listTopics()).includes(topic))
  },

  async refusals() {
    const once = client(bootstrap, 0).admin()
    await once.connect()
    const bad = (topic, more = {}) => refusal(once.createTopics({ topics: [{ topic, ...more }] }))
    assert.strictEqual(await bad('no/slashes'), 'INVALID_TOPIC_EXCEPTION')
    assert.strictEqual(await bad(topicOf('r'), { replicationFactor: 3 }), 'INVALID_REPLICATION_FACTOR')
    assert.strictEqual(
      await bad(topicOf('c'), { configEntries: [{ name: 'retention.ms', value: 'soon' }] }), 'INVALID_CONFIG')
    assert.strictEqual(
      await refusal(once.deleteTopics({ topics: [topicOf('missing')] })), 'UNKNOWN_TOPIC_OR_PARTITION')
    await once.disconnect()
  },

  async configs() {
    const topic = topicOf('configs')
    await create(topic, 1, { 'segment.bytes': '2000000' })
    assert.strictEqual(await configOf(topic, 'segment.bytes'), '2000000')
    const entries = [{ name: 'retention.ms', value: '5000000' }]
    await admin.alterConfigs({
      validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: entries }],
    })
    await eventually(async () => (await configOf(topic, 'retention.ms')) === '5000000')
    assert.strictEqual(await configOf(topic, 'segment.bytes'), '1073741824', 'the full alter drops what it leaves out')
  },

  async offsets() {
    const topic = topicOf('offsets')
    await create(topic)
    await produce(topic, 'offsets')
    const offsets = await admin.fetchTopicOffsets(topic)
    assert.deepStrictEqual(
      offsets.map(o => [o.partition, o.low, o.high]).sort(), [[0, '0', '150'], [1, '0', '150']])
    const byTime = await admin.fetchTopicOffsetsByTimestamp(topic, BASE_MS + 100_500)
    assert.deepStrictEqual(byTime.map(o => [o.partition, o.offset]).sort(), [[0, '51'], [1, '50']])
    const late = await admin.fetchTopicOffsetsByTimestamp(topic, BASE_MS + COUNT * 1000)
    assert.deepStrictEqual(late.map(o => [o.partition, o.offset]).sort(), [[0, '150'], [1, '150']], 'the end')
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 1, offset: '40' }] })
    const after = await admin.fetchTopicOffsets(topic)
    assert.deepStrictEqual(after.map(o => [o.partition, o.low]).sort(), [[0, '0'], [1, '40']])
  },

  async idempotent() {
    const topic = topicOf('idempotent')
    await create(topic)
    await produce(topic, 'idempotent', { idempotent: true }, 10)
  },

  async too_large() {
    const topic = topicOf('large')
    await create(topic, 1, { 'max.message.bytes': '10000' })
    await withProducer({ retry: { retries: 0 } }, async producer => {
      const send = size => producer.send({ topic, messages: [{ value: 'v'.repeat(size) }] })
      await send(9_000)
      assert.strictEqual(await refusal(send(11_000)), 'MESSAGE_TOO_LARGE')
    })
  },

  async auto_creation() {
    await withProducer({}, async producer => {
      const topic = topicOf('auto')
      const [sent] = await producer.send({ topic, messages: [{ value: 'v' }] })
      assert.strictEqual(sent.errorCode, 0)
    })
  },

  async auto_creation_off() {
    if (!noAuto) return
    await withProducer({ kafka: client(noAuto), retry: { retries: 1 } }, async producer => {
      const topic = topicOf('noauto')
      const error = await refusal(producer.send({ topic, messages: [{ value: 'v' }] }))
      assert.strictEqual(error, 'UNKNOWN_TOPIC_OR_PARTITION')
    })
  },

  // The default partitioner of kafkajs 2 is Java's: murmur2 over the key, round robin without one.
  async partitioner() {
    const topic = topicOf('partitioner')
    await create(topic, 11)
    await withProducer({}, async producer => {
      const keyed = Array.from({ length: 500 }, (_, i) => ({ key: `key-${i % 50}`, value: String(i) }))
      const plain = Array.from({ length: 220 }, (_, i) => ({ value: String(i) }))
      await producer.send({ topic, messages: keyed })
      await create(`${topic}-plain`, 11)
      await producer.send({ topic: `${topic}-plain`, messages: plain })
    })
  },
}
for (const [codec, compression] of Object.entries(CODECS)) {
  checks[`produce_${codec}`] = async () => {
    await create(topicOf(codec))
    await produce(topicOf(codec), codec, { compression })
  }
}

async function main() {
  await zstd.init()
  await admin.connect()
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check()
      console.log(`pass ${name}`)
    } catch (error) {
      console.log(`fail ${name} ${String(error.stack || error).replaceAll('\n', ' / ')}`)
    }
  }
  await admin.disconnect()
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
