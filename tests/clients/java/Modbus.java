// j2mod, as tests/clients/protocol.md says: `Modbus HOST PORT ORDER…`.

import com.fasterxml.jackson.databind.ObjectMapper;
import com.ghgande.j2mod.modbus.ModbusSlaveException;
import com.ghgande.j2mod.modbus.facade.ModbusTCPMaster;
import com.ghgande.j2mod.modbus.procimg.InputRegister;
import com.ghgande.j2mod.modbus.procimg.Register;
import com.ghgande.j2mod.modbus.procimg.SimpleRegister;
import com.ghgande.j2mod.modbus.util.ModbusUtil;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

class Modbus {
    public static void main(String[] arguments) throws Exception {
        var client = new ModbusTCPMaster(arguments[0], Integer.parseInt(arguments[1]), 60_000, false);
        client.connect();
        for (var order : Arrays.copyOfRange(arguments, 2, arguments.length)) {
            Map<String, Object> line = new LinkedHashMap<>(Map.of("what", order));
            try {
                line.put("value", carryOut(client, order.split(":")));
            } catch (ModbusSlaveException exception) {
                line.put("exception", exception.getType());
            }
            System.out.println(new ObjectMapper().writeValueAsString(line));
        }
        client.disconnect();
    }

    static Object carryOut(ModbusTCPMaster client, String[] parts) throws Exception {
        int unit = Integer.parseInt(parts[1]);
        int register = Integer.parseInt(parts[2]);
        switch (parts[0]) {
            case "read":
                var words = client.readMultipleRegisters(unit, register, Integer.parseInt(parts[3]));
                return Arrays.stream(words).mapToInt(Register::toUnsignedShort).toArray();
            case "float":
                return number(client.readMultipleRegisters(unit, register, 2));
            case "input":
                return number(client.readInputRegisters(unit, register, 2));
            case "write":
                client.writeSingleRegister(unit, register, new SimpleRegister(Integer.parseInt(parts[3])));
                return null;
            case "write-float":
                var bytes = ModbusUtil.floatToRegisters(Float.parseFloat(parts[3]));
                var both = new Register[] {new SimpleRegister(bytes[0], bytes[1]), new SimpleRegister(bytes[2], bytes[3])};
                client.writeMultipleRegisters(unit, register, both);
                return null;
            default:
                throw new IllegalArgumentException(parts[0]);
        }
    }

    static float number(InputRegister[] words) {
        byte[] high = words[0].toBytes();
        byte[] low = words[1].toBytes();
        return ModbusUtil.registersToFloat(new byte[] {high[0], high[1], low[0], low[1]});
    }
}
