//! rumqttc, as tests/clients/protocol.md says: `mqtt HOST PORT FILTER…`.

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options = MqttOptions::new("rumqttc-under-test", &arguments[0], arguments[1].parse()?);
    options.set_max_packet_size(1 << 24, 1 << 24);
    let (client, mut events) = AsyncClient::new(options, 100);
    for filter in &arguments[2..] {
        client.subscribe(filter, QoS::AtLeastOnce).await?;
    }
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            event = events.poll() => if let Event::Incoming(Packet::Publish(message)) = event? {
                let text = String::from_utf8_lossy(&message.payload);
                println!("{}", json!({"what": message.topic, "value": text, "retained": message.retain}));
            },
            order = orders.next_line() => match order?.as_deref().and_then(|line| line.split_once(' ')) {
                Some((topic, payload)) => client.publish(topic, QoS::AtLeastOnce, false, payload).await?,
                None => return Ok(()),
            },
        }
    }
}
