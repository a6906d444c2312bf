// Package push reads and writes the envelope in which Pub/Sub pushes a message
// to an HTTP endpoint.
//
// The form is the wrapped one, as the vendor's page "Push subscriptions" gives it:
//
//	POST <push endpoint>
//	Content-Type: application/json
//
//	{
//	  "message": {
//	    "attributes":   {"name": "value"},
//	    "data":         "<standard base64, padded>",
//	    "messageId":    "2070443601311540", "message_id":   "2070443601311540",
//	    "orderingKey":  "key",
//	    "publishTime":  "2021-02-26T19:13:55.749Z", "publish_time": "2021-02-26T19:13:55.749Z"
//	  },
//	  "subscription":    "projects/myproject/subscriptions/mysubscription",
//	  "deliveryAttempt": 5
//	}
//
// [Read] takes it from a request, [Decode] from bytes, and [Message.Append]
// writes it. The reader is written by hand, because every request of the system
// passes through it and the general one of the standard library walks the body
// several times; a fuzz test holds the two against each other.
//
// What Google may add later is ignored. What would make two readers of one body
// understand two things (a field given twice, two message IDs) is refused.
package push
