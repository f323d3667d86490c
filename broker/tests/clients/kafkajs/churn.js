// A member of a group under churn (churn/reports.py): `r PARTITION OFFSET NUMBER` for each record, before it is committed,
// and `c PARTITION OFFSET` for each acknowledged commit; SIGTERM makes it leave.
'use strict'

const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, groupId, topic, report] = process.argv.slice(2)
const file = fs.openSync(report, 'a')
const say = (lines) => fs.writeSync(file, lines.map((line) => `${line}\n`).join(''))

const consumer = new Kafka({
  brokers: [bootstrap],
  logLevel: logLevel.ERROR,
  retry: { initialRetryTime: 100, maxRetryTime: 500, retries: 1000 },
}).consumer({
  groupId, sessionTimeout: 6000, heartbeatInterval: 1000, rebalanceTimeout: 15000, maxWaitTimeInMs: 100,
})

async function eachBatch({ batch: { partition, messages }, commitOffsetsIfNecessary, heartbeat, isRunning, isStale }) {
  if (!isRunning() || isStale()) return
  say(messages.map(({ offset, value }) => `r ${partition} ${offset} ${value}`))
  const next = String(BigInt(messages[messages.length - 1].offset) + 1n)
  // Not consumer.commitOffsets: an UNKNOWN_MEMBER_ID there ends the consumer, here it joins anew.
  await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset: next }] }] })
  say([`c ${partition} ${next}`])
  await heartbeat()
}

// Put out of its group, it joins anew most times, and at others gives up: then whoever runs it starts it again.
consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || process.exit(4))

async function main() {
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ autoCommit: false, eachBatch })
}

process.on('SIGTERM', () => consumer.disconnect().then(() => process.exit(0)))
main().catch((error) => {
  // The broker may have been killed as it began: its retries do not hold for a first connection that is reset.
  console.error(error)
  process.exit(4)
})
