// aedes as a broker: `broker.js PORT`. Prints a line when it listens; ends with its standard input.
const { Aedes } = require('aedes')

async function main () {
  const aedes = await Aedes.createBroker()
  require('net').createServer(aedes.handle).listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'))
  process.stdin.resume().on('end', () => process.exit())
}

main()
