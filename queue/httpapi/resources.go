package httpapi

import (
	"net/http"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func (c *call) addResources() error {
	resources, err := c.resourcesBody()
	if err != nil {
		return err
	}
	added, err := c.server.store.AddResources(c.ctx(), resources)
	if err == nil {
		one(c, http.StatusCreated, &added)
	}
	return err
}

func (c *call) updateResources() error {
	resources, err := c.resourcesBody()
	if err != nil {
		return err
	}
	updated, err := c.server.store.UpdateResources(c.ctx(), c.ids[0], resources)
	if err == nil {
		one(c, http.StatusOK, &updated)
	}
	return err
}

func (c *call) latestResources() error {
	found, err := c.server.store.LatestResources(c.ctx())
	if err == nil {
		one(c, http.StatusOK, found)
	}
	return err
}

func (c *call) resources() error {
	found, err := c.server.store.Resources(c.ctx(), c.ids[0])
	if err == nil {
		one(c, http.StatusOK, found)
	}
	return err
}

// resourcesBody reads a map of named resources: the declared members of each,
// resource_type first, defaults filled in.
func (c *call) resourcesBody() (rawjson.Value, error) {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return nil, err
	}
	if body == nil {
		v.missing(&inBody, nil)
		return nil, v.err()
	}
	if body.Kind() != rawjson.KindObject {
		v.fail(&inBody, "dict_type", "Input should be a valid dictionary", body, "")
		return nil, v.err()
	}
	out := append(make([]byte, 0, len(body)+64), '{')
	for key, x := range body.Members() {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, key...)
		out = append(out, '"', ':')
		at := inBody.at(rawjson.Unescape(key))
		out = v.resource(&at, x, out)
	}
	return append(out, '}'), v.err()
}

const resourceTags = "'llm', 'proxy_llm', 'prompt_template'"

var promptEngines = []string{"jinja", "f-string", "poml"}

// resource appends one resource.
func (v *checker) resource(at *loc, x rawjson.Value, out []byte) []byte {
	if !v.object(at, x) {
		return out
	}
	tag := x.Get("resource_type")
	if tag == nil {
		v.fail(at, "union_tag_not_found", "Unable to extract tag using discriminator 'resource_type'", x,
			`{"discriminator":"'resource_type'"}`)
		return out
	}
	name := tag.Text()
	here := at.at(name)
	switch name {
	case "llm", "proxy_llm":
		return v.llm(&here, x, tag, out)
	case queue.PromptType:
		return v.prompt(&here, x, tag, out)
	}
	if tag.Kind() != rawjson.KindString {
		name = string(tag)
		if tag.IsNull() {
			name = "None"
		}
	}
	ctx := append([]byte(`{"discriminator":"'resource_type'","tag":`), rawjson.AppendString(nil, name)...)
	ctx = append(ctx, `,"expected_tags":"`+resourceTags+`"}`...)
	v.fail(at, "union_tag_invalid", "Input tag '"+name+"' found using 'resource_type' does not match any of the expected tags: "+
		resourceTags, x, string(ctx))
	return out
}

func (v *checker) llm(at *loc, x, tag rawjson.Value, out []byte) []byte {
	out = append(out, `{"resource_type":`...)
	out = append(out, tag...)
	out = append(out, `,"endpoint":`...)
	out = rawjson.AppendString(out, v.needText(at, x, "endpoint"))
	out = append(out, `,"model":`...)
	out = rawjson.AppendString(out, v.needText(at, x, "model"))
	out = append(out, `,"api_key":`...)
	here := at.at("api_key")
	if key := v.optText(&here, x.Get("api_key")); key != nil {
		out = rawjson.AppendString(out, *key)
	} else {
		out = append(out, "null"...)
	}
	out = append(out, `,"sampling_parameters":`...)
	here = at.at("sampling_parameters")
	if parameters := x.Get("sampling_parameters"); parameters != nil {
		out = append(out, v.dict(&here, parameters)...)
	} else {
		out = append(out, '{', '}')
	}
	return append(out, '}')
}

func (v *checker) prompt(at *loc, x, tag rawjson.Value, out []byte) []byte {
	out = append(out, `{"resource_type":`...)
	out = append(out, tag...)
	out = append(out, `,"template":`...)
	out = rawjson.AppendString(out, v.needText(at, x, "template"))
	out = append(out, `,"engine":`...)
	here := at.at("engine")
	if engine := x.Get("engine"); engine != nil {
		out = rawjson.AppendString(out, literal(v, &here, engine, promptEngines))
	} else {
		v.missing(&here, x)
	}
	return append(out, '}')
}
