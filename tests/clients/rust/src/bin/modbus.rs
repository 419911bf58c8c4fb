//! tokio-modbus, as tests/clients/protocol.md says: `modbus HOST PORT ORDER…`.

use serde_json::json;
use tokio_modbus::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = format!("{}:{}", arguments[0], arguments[1]).parse()?;
    let mut client = tcp::connect(address).await?;
    for order in &arguments[2..] {
        let parts: Vec<&str> = order.split(':').collect();
        let register: u16 = parts[2].parse()?;
        client.set_slave(Slave(parts[1].parse()?));
        let answer = match parts[0] {
            "read" => client.read_holding_registers(register, parts[3].parse()?).await?.map(|words| json!(words)),
            "float" => client.read_holding_registers(register, 2).await?.map(|words| json!(float(&words))),
            "input" => client.read_input_registers(register, 2).await?.map(|words| json!(float(&words))),
            "write" => client.write_single_register(register, parts[3].parse()?).await?.map(|()| json!(null)),
            "write-float" => {
                let bits = parts[3].parse::<f32>()?.to_bits();
                let words = [(bits >> 16) as u16, bits as u16];
                client.write_multiple_registers(register, &words).await?.map(|()| json!(null))
            }
            other => panic!("{other}"),
        };
        match answer {
            Ok(value) => println!("{}", json!({"what": order, "value": value})),
            Err(exception) => println!("{}", json!({"what": order, "exception": u8::from(exception)})),
        }
    }
    Ok(())
}

fn float(words: &[u16]) -> f32 {
    f32::from_bits(u32::from(words[0]) << 16 | u32::from(words[1]))
}
