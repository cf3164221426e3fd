package mqtt

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
)

const defaultHomeAssistantPrefix = "homeassistant"

// HomeAssistant describes the gateway to Home Assistant as one device, by MQTT
// device discovery (https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload,
// Home Assistant 2024.11 or newer). Entities are unavailable while TopicStatus is not Online.
type HomeAssistant struct {
	Prefix  string   // of discovery topics; default "homeassistant"
	Version string   // of Picket
	Health  []Sensor // from the JSON object of TopicHealth
}

// Sensor is a number of the JSON object that is published to TopicHealth.
type Sensor struct {
	Path  string // of the member, levels joined by dots; also its identifier, for good
	Name  string // for people
	Unit  string
	Total bool // it only grows, but for restarts
}

func (h *HomeAssistant) prefix() string { return cmp.Or(h.Prefix, defaultHomeAssistantPrefix) }

// statusTopic is where Home Assistant says that it has come up.
func (h *HomeAssistant) statusTopic() string { return h.prefix() + "/status" }

// configTopic is what Announce takes to announce c's gateway again.
func (h *HomeAssistant) configTopic(c *Config) string {
	return h.prefix() + "/device/" + deviceID(c) + "/config"
}

// deviceID has only letters, digits, '_' and '-', all that Home Assistant allows.
// A hash keeps apart what the replacing of others, or another topic prefix, makes alike.
func deviceID(c *Config) string {
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, c.Gateway)
	if id != c.Gateway || cmp.Or(c.TopicPrefix, defaultPrefix) != defaultPrefix {
		sum := sha256.Sum256([]byte(c.Topic("")))
		id += "_" + hex.EncodeToString(sum[:4])
	}
	return "picket_" + id
}

// eventTemplate makes of an event what Home Assistant's event entity takes.
const eventTemplate = `{{ {'event_type': value_json.picket.phase, 'message': value_json.message, 'severity': value_json.event.severity, ` +
	`'risk_score': value_json.event.risk_score, 'incident': value_json.picket.incident, ` +
	`'source': (value_json.source or {}).ip | default(none), 'destination': (value_json.destination or {}).ip | default(none)} | tojson }}`

// component is one entity; its fields are Home Assistant's.
type component struct {
	Platform       string   `json:"platform"`
	UniqueID       string   `json:"unique_id"`
	Name           string   `json:"name"`
	StateTopic     string   `json:"state_topic"`
	ValueTemplate  string   `json:"value_template,omitempty"`
	DeviceClass    string   `json:"device_class,omitempty"`
	StateClass     string   `json:"state_class,omitempty"`
	Unit           string   `json:"unit_of_measurement,omitempty"`
	EntityCategory string   `json:"entity_category,omitempty"`
	EventTypes     []string `json:"event_types,omitempty"`
	Icon           string   `json:"icon,omitempty"`
}

// message returns the retained message that announces c's gateway.
func (h *HomeAssistant) message(c *Config) Message {
	type device struct {
		Identifiers  []string `json:"identifiers"`
		Name         string   `json:"name"`
		Manufacturer string   `json:"manufacturer"`
		Model        string   `json:"model"`
		Version      string   `json:"sw_version,omitempty"`
	}
	type origin struct {
		Name    string `json:"name"`
		Version string `json:"sw_version,omitempty"`
		URL     string `json:"support_url"`
	}
	id := deviceID(c)
	components := map[string]component{
		"problem": {Platform: "binary_sensor", Name: "Incident", StateTopic: c.Topic(TopicProblem), DeviceClass: "problem"},
		"event": {Platform: "event", Name: "Event", StateTopic: c.Topic(TopicEvent), ValueTemplate: eventTemplate,
			EventTypes: []string{"new", "update", "end"}, Icon: "mdi:shield-alert"},
	}
	for _, s := range h.Health {
		class := "measurement"
		if s.Total {
			class = "total_increasing"
		}
		components["health_"+strings.ReplaceAll(s.Path, ".", "_")] = component{Platform: "sensor", Name: s.Name,
			StateTopic: c.Topic(TopicHealth), ValueTemplate: "{{ value_json." + s.Path + " }}",
			StateClass: class, Unit: s.Unit, EntityCategory: "diagnostic"}
	}
	for key, e := range components {
		e.UniqueID = id + "_" + key
		components[key] = e
	}
	payload, err := json.Marshal(struct {
		Device       device               `json:"device"`
		Origin       origin               `json:"origin"`
		Availability string               `json:"availability_topic"`
		Components   map[string]component `json:"components"`
	}{
		device{[]string{id}, "Picket " + c.Gateway, "Picket", "network sensor", h.Version},
		origin{"Picket", h.Version, "https://github.com/picket-ids/picket"},
		c.Topic(TopicStatus), components,
	})
	if err != nil {
		panic(err) // strings only
	}
	return Message{Topic: h.configTopic(c), Payload: payload, QoS: 1, Retained: true}
}
