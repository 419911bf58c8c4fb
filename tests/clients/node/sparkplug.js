// sparkplug-payload, Tahu's coder for JavaScript, as tests/clients/protocol.md says: `sparkplug.js HOST PORT FILTER…`.
const mqtt = require('mqtt')
const coder = require('sparkplug-payload').get('spBv1.0')

const [host, port, ...filters] = process.argv.slice(2)
const client = mqtt.connect({ host, port: Number(port), reconnectPeriod: 0 })
const TYPES = { boolean: 'Boolean', number: 'Double', string: 'String' }
const plain = (key, value) => (typeof value === 'bigint' || value?.toNumber ? Number(value) : value)
client.on('error', (error) => { throw error })
client.on('message', (topic, payload) => {
  const { metrics = [] } = coder.decodePayload(payload)
  const value = Object.fromEntries(metrics.map(({ name, alias, value }) => [name ?? `alias ${alias}`, value]))
  console.log(JSON.stringify({ what: topic, value }, plain))
})
client.subscribe(filters, { qos: 1 })
require('readline').createInterface({ input: process.stdin })
  .on('line', (line) => {
    const end = line.indexOf(' ')
    const timestamp = Date.now()
    const metrics = Object.entries(JSON.parse(line.slice(end + 1)))
      .map(([name, value]) => ({ name, value, type: TYPES[typeof value], timestamp }))
    client.publish(line.slice(0, end), Buffer.from(coder.encodePayload({ timestamp, metrics })), { qos: 0 })
  })
  .on('close', () => client.end())
