// modbus-serial, as tests/clients/protocol.md says: `modbus.js HOST PORT ORDER…`.
const ModbusRTU = require('modbus-serial')

const float = ({ buffer }) => buffer.readFloatBE(0)

const ORDERS = {
  read: async (client, register, count) => (await client.readHoldingRegisters(register, count)).data,
  float: async (client, register) => float(await client.readHoldingRegisters(register, 2)),
  input: async (client, register) => float(await client.readInputRegisters(register, 2)),
  write: async (client, register, value) => void (await client.writeRegister(register, value)),
  'write-float': async (client, register, value) => {
    const buffer = Buffer.alloc(4)
    buffer.writeFloatBE(value)
    await client.writeRegisters(register, buffer)
  }
}

async function main ([host, port, ...orders]) {
  const client = new ModbusRTU()
  await client.connectTCP(host, { port: Number(port) })
  client.setTimeout(60_000)
  for (const what of orders) {
    const [order, unit, ...numbers] = what.split(':')
    client.setID(Number(unit))
    let line
    try {
      line = { what, value: (await ORDERS[order](client, ...numbers.map(Number))) ?? null }
    } catch (error) {
      line = error.modbusCode ? { what, exception: error.modbusCode } : { what, error: String(error.message ?? error) }
    }
    console.log(JSON.stringify(line))
  }
  client.close()
}

main(process.argv.slice(2))
