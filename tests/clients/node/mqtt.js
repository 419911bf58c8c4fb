// MQTT.js, as tests/clients/protocol.md says: `mqtt.js VERSION HOST PORT FILTER…`.
const mqtt = require('mqtt')

const [version, host, port, ...filters] = process.argv.slice(2)
const client = mqtt.connect({ host, port: Number(port), protocolVersion: Number(version), reconnectPeriod: 0 })
client.on('error', (error) => { throw error })
client.on('message', (topic, payload, packet) =>
  console.log(JSON.stringify({ what: topic, value: payload.toString(), retained: packet.retain })))
client.subscribe(filters, { qos: 1 })
require('readline').createInterface({ input: process.stdin })
  .on('line', (line) => {
    const end = line.indexOf(' ')
    client.publish(line.slice(0, end), line.slice(end + 1), { qos: 1 })
  })
  .on('close', () => client.end())
