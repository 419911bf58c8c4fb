// Eclipse Tahu's coder with Paho for Java, as tests/clients/protocol.md says: `Sparkplug HOST PORT FILTER…`.

import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Scanner;
import org.eclipse.paho.client.mqttv3.MqttClient;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;
import org.eclipse.tahu.message.SparkplugBPayloadDecoder;
import org.eclipse.tahu.message.SparkplugBPayloadEncoder;
import org.eclipse.tahu.message.model.Metric;
import org.eclipse.tahu.message.model.MetricDataType;
import org.eclipse.tahu.message.model.SparkplugBPayload.SparkplugBPayloadBuilder;

class Sparkplug {
    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        var client = new MqttClient("tcp://" + arguments[0] + ":" + arguments[1], "tahu", new MemoryPersistence());
        client.connect();
        for (var filter : Arrays.copyOfRange(arguments, 2, arguments.length)) {
            client.subscribe(filter, 1, (topic, message) -> print(topic, message.getPayload()));
        }
        var lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            var parts = lines.nextLine().split(" ", 2);
            client.publish(parts[0], encoded(parts[1]), 0, false);
        }
        client.disconnect();
        client.close();
    }

    static void print(String topic, byte[] payload) throws Exception {
        Map<String, Object> values = new LinkedHashMap<>();
        for (var metric : new SparkplugBPayloadDecoder().buildFromByteArray(payload, null).getMetrics()) {
            values.put(metric.hasName() ? metric.getName() : "alias " + metric.getAlias(), metric.getValue());
        }
        System.out.println(JSON.writeValueAsString(Map.of("what", topic, "value", values)));
    }

    static byte[] encoded(String json) throws Exception {
        var payload = new SparkplugBPayloadBuilder().setTimestamp(new java.util.Date());
        for (var entry : JSON.readValue(json, Map.class).entrySet()) {
            var metric = (Map.Entry<?, ?>) entry;
            var value = metric.getValue() instanceof Number number ? number.doubleValue() : metric.getValue();
            var type = value instanceof Double ? MetricDataType.Double
                    : value instanceof Boolean ? MetricDataType.Boolean : MetricDataType.String;
            payload.addMetric(new Metric.MetricBuilder((String) metric.getKey(), type, value).createMetric());
        }
        return new SparkplugBPayloadEncoder().getBytes(payload.createPayload(), false);
    }
}
