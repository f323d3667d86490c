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

async function eachBatch({ batch: { partition, messages }, heartbeat, isRunning, isStale }) {
  if (!isRunning() || isStale()) return
  say(messages.map(({ offset, value }) => `r ${partition} ${offset} ${value}`))
  const next = String(BigInt(messages[messages.length - 1].offset) + 1n)
  await consumer.commitOffsets([{ topic, partition, offset: next }])
  say([`c ${partition} ${next}`])
  await heartbeat()
}

async function main() {
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ autoCommit: false, eachBatch })
}

process.on('SIGTERM', () => consumer.disconnect().then(() => process.exit(0)))
main().catch((error) => {
  console.error(error)
  process.exit(1)
})
