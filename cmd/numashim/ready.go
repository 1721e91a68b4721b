package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// readyLabel is the label that RuntimeClasses select nodes by.
const readyLabel = "numa.containerd.io/ready"

// node is what matters of a Node object (k8s.io/api/core/v1).
type node struct {
	Metadata struct {
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Status struct {
		// RuntimeHandlers are those that containerd tells kubelet of
		// (Kubernetes 1.30 and later).
		RuntimeHandlers []struct {
			Name string `json:"name"`
		} `json:"runtimeHandlers"`
	} `json:"status"`
}

// knows tells whether containerd has the handler.
func (n node) knows(handler string) bool {
	for _, h := range n.Status.RuntimeHandlers {
		if h.Name == handler {
			return true
		}
	}
	return false
}

// ready labels the node while containerd knows the handler, and takes the
// label away while it does not. Pods that run are not affected by it.
func ready(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("ready", flag.ContinueOnError)
	name := f.String("node", os.Getenv("NODE_NAME"), "the node's name")
	handler := f.String("handler", "numa", "the handler's name in containerd's configuration")
	every := f.Duration("every", time.Minute, "how often to look; 0 looks once")
	if err := parse(f, args, out); err != nil {
		return err
	}
	if *every < 0 {
		return fmt.Errorf("ready: -every %v is less than nothing: %w", *every, errUsage)
	}
	if *name == "" {
		return errors.New("ready: no -node, and NODE_NAME is not set")
	}
	api, err := inCluster()
	if err != nil {
		return fmt.Errorf("ready: %w", err)
	}
	for {
		err := keep(ctx, api, *name, *handler, out)
		switch {
		case ctx.Err() != nil:
			return nil
		case *every == 0:
			return err
		case err != nil:
			// The API server may be away; the label stays as it is meanwhile.
			fmt.Fprintln(out, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(*every):
		}
	}
}

// keep looks once, and changes the label if it is wrong.
func keep(ctx context.Context, api *cluster, name, handler string, out io.Writer) error {
	var n node
	if err := api.getNode(ctx, name, &n); err != nil {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	knows := n.knows(handler)
	if value, labelled := n.Metadata.Labels[readyLabel]; knows == labelled && (!knows || value == "true") {
		return nil
	}
	value := any("true")
	if !knows {
		value = nil // a JSON merge patch (RFC 7396) removes what it sets to null
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{readyLabel: value}}})
	if err != nil {
		return err
	}
	if err := api.patchNode(ctx, name, patch); err != nil {
		return fmt.Errorf("label node %s: %w", name, err)
	}
	if knows {
		fmt.Fprintf(out, "containerd of node %s knows the handler %q: labelled %s=true\n", name, handler, readyLabel)
	} else {
		fmt.Fprintf(out, "containerd of node %s does not know the handler %q: label %s removed\n", name, handler, readyLabel)
	}
	return nil
}
