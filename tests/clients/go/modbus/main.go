// simonvetter/modbus, as tests/clients/protocol.md says: `modbus HOST PORT ORDER…`.
package main

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/simonvetter/modbus"
)

var exceptions = map[error]int{
	modbus.ErrIllegalFunction:         1,
	modbus.ErrIllegalDataAddress:      2,
	modbus.ErrIllegalDataValue:        3,
	modbus.ErrServerDeviceFailure:     4,
	modbus.ErrServerDeviceBusy:        6,
	modbus.ErrGWPathUnavailable:       10,
	modbus.ErrGWTargetFailedToRespond: 11,
}

func main() {
	out := json.NewEncoder(os.Stdout)
	client, err := modbus.NewClient(&modbus.ClientConfiguration{
		URL: "tcp://" + os.Args[1] + ":" + os.Args[2], Timeout: time.Minute,
	})
	check(err)
	check(client.Open())
	defer client.Close()
	for _, order := range os.Args[3:] {
		line := map[string]any{"what": order}
		value, err := do(client, strings.Split(order, ":"))
		if err == nil {
			line["value"] = value
		} else if code := exception(err); code != 0 {
			line["exception"] = code
		} else {
			line["error"] = err.Error()
		}
		check(out.Encode(line))
	}
}

func do(client *modbus.ModbusClient, parts []string) (any, error) {
	register := uint16(number(parts[2]))
	check(client.SetUnitId(uint8(number(parts[1]))))
	switch parts[0] {
	case "read":
		return client.ReadRegisters(register, uint16(number(parts[3])), modbus.HOLDING_REGISTER)
	case "float":
		return client.ReadFloat32(register, modbus.HOLDING_REGISTER)
	case "input":
		return client.ReadFloat32(register, modbus.INPUT_REGISTER)
	case "write":
		return nil, client.WriteRegister(register, uint16(number(parts[3])))
	case "write-float":
		return nil, client.WriteFloat32(register, float32(number(parts[3])))
	}
	panic(parts[0])
}

func exception(err error) int {
	for known, code := range exceptions {
		if errors.Is(err, known) {
			return code
		}
	}
	return 0
}

func number(text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
