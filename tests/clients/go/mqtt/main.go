// Eclipse Paho for Go, as tests/clients/protocol.md says: `mqtt HOST PORT FILTER…`.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	var lock sync.Mutex
	out := json.NewEncoder(os.Stdout)
	print := func(_ paho.Client, message paho.Message) {
		lock.Lock()
		defer lock.Unlock()
		out.Encode(map[string]any{
			"what": message.Topic(), "value": string(message.Payload()), "retained": message.Retained(),
		})
	}
	options := paho.NewClientOptions().AddBroker("tcp://" + os.Args[1] + ":" + os.Args[2]).SetClientID("paho-go-under-test")
	client := paho.NewClient(options)
	wait(client.Connect())
	for _, filter := range os.Args[3:] {
		wait(client.Subscribe(filter, 1, print))
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		topic, payload, _ := strings.Cut(lines.Text(), " ")
		wait(client.Publish(topic, 1, false, payload))
	}
	client.Disconnect(100)
}

func wait(token paho.Token) {
	if token.Wait(); token.Error() != nil {
		panic(token.Error())
	}
}
