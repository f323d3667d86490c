// A member of a consumer group: prints partition, offset, key and value of each record; SIGTERM makes it leave.
'use strict'

const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, groupId, topic] = process.argv.slice(2)

const consumer = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR }).consumer({ groupId })

async function main() {
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      process.stdout.write(`${partition}\t${message.offset}\t${message.key}\t${message.value}\n`)
    },
  })
}

process.on('SIGTERM', () => consumer.disconnect().then(() => process.exit(0)))
main().catch((error) => {
  console.error(error)
  process.exit(1)
})
