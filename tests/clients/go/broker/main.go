// mochi-mqtt as a broker: `broker PORT`. Prints a line when it listens; ends with its standard input.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

func main() {
	server := mochi.New(&mochi.Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	check(server.AddHook(new(auth.AllowHook), nil))
	check(server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: "127.0.0.1:" + os.Args[1]})))
	check(server.Serve())
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	check(server.Close())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
