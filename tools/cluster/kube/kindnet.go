//go:build node

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// kindnet stands in for kind's own CNI daemon, which is published as an image only. Each node gets a CNI configuration
// from its podCIDR and one route per other node; there is no NetworkPolicy and no IPv6.
func init() { commands["kindnet"] = runKindnet }

const (
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"
	cniConfig      = "/etc/cni/net.d/10-kindnet.conflist"
)

type node struct {
	Spec   struct{ PodCIDR string }
	Status struct {
		Addresses []struct{ Type, Address string }
	}
}

type kindnet struct {
	client *http.Client
	api    string
	self   string            // this node's address
	routes map[string]string // podCIDR to the node's address
}

func runKindnet() {
	authority, err := os.ReadFile(serviceAccount + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	api := os.Getenv("CONTROL_PLANE_ENDPOINT") // set by kind; it answers before kube-proxy makes the Service work
	if api == "" {
		api = net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	k := kindnet{&http.Client{Timeout: 5 * time.Second, Transport: transport}, api, os.Getenv("HOST_IP"), map[string]string{}}
	for masqueraded := false; ; time.Sleep(time.Second) {
		if !masqueraded {
			err = masquerade(os.Getenv("POD_SUBNET"))
			masqueraded = err == nil
		}
		if err == nil {
			err = k.synchronize()
		}
		if err != nil {
			log.Print(err)
			err = nil
		}
	}
}

func run(command ...string) error {
	if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", command, err, output)
	}
	return nil
}

// masquerade hides pods behind their node where they leave the pod network.
func masquerade(subnet string) error {
	rule := []string{"POSTROUTING", "-s", subnet, "!", "-d", subnet, "-m", "comment", "--comment", "kindnet", "-j", "MASQUERADE"}
	table := []string{"iptables", "-w", "-t", "nat"}
	if run(append(append(table[:4:4], "-C"), rule...)...) == nil {
		return nil
	}
	return run(append(append(table[:4:4], "-A"), rule...)...)
}

func (k *kindnet) nodes() ([]node, error) {
	token, err := os.ReadFile(serviceAccount + "token")
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, "https://"+k.api+"/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list of nodes: %s", response.Status)
	}
	var list struct{ Items []node }
	err = json.NewDecoder(response.Body).Decode(&list)
	return list.Items, err
}

func (k *kindnet) synchronize() error {
	nodes, err := k.nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		for _, address := range n.Status.Addresses {
			if n.Spec.PodCIDR == "" || address.Type != "InternalIP" {
				continue
			}
			if address.Address == k.self {
				err = writeConfig(n.Spec.PodCIDR)
			} else {
				err = k.route(n.Spec.PodCIDR, address.Address)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *kindnet) route(subnet, via string) error {
	if k.routes[subnet] == via {
		return nil
	}
	if err := run("ip", "route", "replace", subnet, "via", via); err != nil {
		return err
	}
	k.routes[subnet] = via
	log.Print("route ", subnet, " via ", via)
	return nil
}

// writeConfig renames the file into place: the kubelet takes the node for ready as soon as it is there.
func writeConfig(subnet string) error {
	config := fmt.Sprintf(`{"cniVersion": "0.3.1", "name": "kindnet", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state",
    "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": %q}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, subnet)
	if present, err := os.ReadFile(cniConfig); err == nil && string(present) == config {
		return nil
	}
	log.Print("CNI configuration for ", subnet)
	if err := os.WriteFile(cniConfig+".new", []byte(config), 0o644); err != nil {
		return err
	}
	return os.Rename(cniConfig+".new", cniConfig)
}
