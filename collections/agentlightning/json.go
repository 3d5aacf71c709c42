package agentlightning

import (
	"encoding/base64"
	"math"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/aglq/aglq/queue/rawjson"
)

// toJSON makes JSON of a BSON value. Infinities and NaN, which JSON does not
// have, become null; with asText, as in span attributes, their names.
func toJSON(v bson.RawValue, asText bool) rawjson.Value {
	return appendJSON(make([]byte, 0, len(v.Value)), bsoncore.Value{Type: bsoncore.Type(v.Type), Data: v.Value}, asText)
}

func appendJSON(dst []byte, v bsoncore.Value, asText bool) []byte {
	switch v.Type {
	case bsoncore.TypeDouble:
		return appendFloat(dst, v.Double(), asText)
	case bsoncore.TypeInt32:
		return rawjson.AppendInt(dst, int64(v.Int32()))
	case bsoncore.TypeInt64:
		return rawjson.AppendInt(dst, v.Int64())
	case bsoncore.TypeString:
		return rawjson.AppendString(dst, v.StringValue())
	case bsoncore.TypeBoolean:
		if v.Boolean() {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case bsoncore.TypeNull, bsoncore.TypeUndefined:
		return append(dst, "null"...)
	case bsoncore.TypeEmbeddedDocument:
		return appendElements(dst, v.Data, true, asText)
	case bsoncore.TypeArray:
		return appendElements(dst, v.Data, false, asText)
	case bsoncore.TypeDateTime:
		return rawjson.AppendString(dst, time.UnixMilli(v.DateTime()).UTC().Format(time.RFC3339Nano))
	case bsoncore.TypeObjectID:
		return rawjson.AppendString(dst, bson.ObjectID(v.ObjectID()).Hex())
	case bsoncore.TypeBinary:
		_, data := v.Binary()
		return rawjson.AppendString(dst, base64.StdEncoding.EncodeToString(data))
	}
	return rawjson.AppendString(dst, v.String()) // nothing that comes from JSON
}

func appendFloat(dst []byte, f float64, asText bool) []byte {
	switch {
	case !asText || !math.IsNaN(f) && !math.IsInf(f, 0):
		return rawjson.AppendFloat(dst, f)
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case f > 0:
		return append(dst, `"Infinity"`...)
	}
	return append(dst, `"-Infinity"`...)
}

// appendElements appends a document, or the array that it stands for.
func appendElements(dst, doc []byte, named, asText bool) []byte {
	open, end := byte('['), byte(']')
	if named {
		open, end = '{', '}'
	}
	dst = append(dst, open)
	elements, _ := bsoncore.Document(doc).Elements() // what a server sends is well formed
	for i, e := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		if named {
			dst = append(rawjson.AppendString(dst, e.Key()), ':')
		}
		dst = appendJSON(dst, e.Value(), asText)
	}
	return append(dst, end)
}
