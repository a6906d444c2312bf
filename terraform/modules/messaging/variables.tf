variable "project_id" {
  description = "Project that the topics and subscriptions are made in."
  type        = string
}

variable "project_number" {
  description = "Number of that project: it names Pub/Sub's service agent, which moves dead letters. Not used without IAM."
  type        = string
  default     = null
}

variable "requests_topic" {
  description = "Name of the topic that bridges publish requests to."
  type        = string
  default     = "tebra-requests"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._~%+-]{2,199}$", var.requests_topic)) && !startswith(var.requests_topic, "goog")
    error_message = "requests_topic: want a letter, then 2 to 199 letters, digits or - . _ ~ % +, not beginning with goog, so that the subscription's name, 5 characters longer, is short enough too."
  }
}

variable "dead_letters_topic" {
  description = "Name of the topic of requests that a person must look at."
  type        = string
  default     = "tebra-dead-letters"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._~%+-]{2,199}$", var.dead_letters_topic)) && !startswith(var.dead_letters_topic, "goog")
    error_message = "dead_letters_topic: want a letter, then 2 to 199 letters, digits or - . _ ~ % +, not beginning with goog, so that the subscription's name, 5 characters longer, is short enough too."
  }

  validation {
    condition     = var.dead_letters_topic != var.requests_topic
    error_message = "dead_letters_topic must be another topic than requests_topic: dead letters would be requests again."
  }
}

variable "inspect_subscription" {
  description = "Name of the subscription that operators read dead letters from."
  type        = string
  default     = "tebra-dead-letters-inspect"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._~%+-]{2,254}$", var.inspect_subscription)) && !startswith(var.inspect_subscription, "goog")
    error_message = "inspect_subscription: want a letter, then 2 to 254 letters, digits or - . _ ~ % +, not beginning with goog."
  }
}

variable "process" {
  description = "Where requests are pushed to: the URL of ProcessRequest, the audience of the tokens that pushes carry, and the account that they are of. Without an account pushes carry no token (an emulator's never do)."
  type = object({
    endpoint = string
    audience = optional(string)
    account  = optional(string)
  })

  validation {
    condition     = can(regex("^https://", var.process.endpoint)) || can(regex("^http://(127\\.0\\.0\\.1|localhost|\\[::1\\])[:/]", var.process.endpoint))
    error_message = "process.endpoint: want an https:// URL, or http:// on loopback for an emulator."
  }
}

variable "record" {
  description = "Where dead letters are pushed to, as in process: RecordDeadLetter."
  type = object({
    endpoint = string
    audience = optional(string)
    account  = optional(string)
  })

  validation {
    condition     = can(regex("^https://", var.record.endpoint)) || can(regex("^http://(127\\.0\\.0\\.1|localhost|\\[::1\\])[:/]", var.record.endpoint))
    error_message = "record.endpoint: want an https:// URL, or http:// on loopback for an emulator."
  }
}

variable "publishers" {
  description = "Members that may publish, by a name of your choosing: to the topic of requests, and to that of dead letters."
  type = object({
    requests     = optional(map(string), {})
    dead_letters = optional(map(string), {})
  })
  default = {}
}

variable "operators" {
  description = "Members, such as group:ops@example.com, that may read and acknowledge dead letters."
  type        = set(string)
  default     = []
}

variable "manage_iam" {
  description = "Whether to grant what Pub/Sub and the accounts need. An emulator knows no IAM: false there."
  type        = bool
  default     = true

  validation {
    condition     = !var.manage_iam || var.project_number != null
    error_message = "manage_iam needs project_number, which names Pub/Sub's service agent."
  }
}

variable "ack_deadline_seconds" {
  description = "How long a push may take before it counts as failed. ACK_DEADLINE of the functions, and their request timeout."
  type        = number
  default     = 120

  validation {
    condition     = var.ack_deadline_seconds >= 10 && var.ack_deadline_seconds <= 600
    error_message = "ack_deadline_seconds: Pub/Sub allows 10 to 600."
  }
}

variable "min_backoff_seconds" {
  description = "Shortest time between two deliveries of a message."
  type        = number
  default     = 10

  validation {
    condition     = var.min_backoff_seconds >= 0 && var.min_backoff_seconds <= var.max_backoff_seconds
    error_message = "min_backoff_seconds: want 0 to max_backoff_seconds."
  }
}

variable "max_backoff_seconds" {
  description = "Longest time between two deliveries of a message."
  type        = number
  default     = 600

  validation {
    condition     = var.max_backoff_seconds <= 600
    error_message = "max_backoff_seconds: Pub/Sub allows at most 600."
  }
}

variable "max_attempts" {
  description = "How often a request is delivered before it is a dead letter."
  type        = number
  default     = 10

  validation {
    condition     = var.max_attempts >= 5 && var.max_attempts <= 100 && floor(var.max_attempts) == var.max_attempts
    error_message = "max_attempts: Pub/Sub allows 5 to 100."
  }
}

variable "request_retention_hours" {
  description = "How long Pub/Sub keeps a request that nobody has acknowledged."
  type        = number
  default     = 24

  validation {
    condition     = var.request_retention_hours >= 1 && var.request_retention_hours <= 744
    error_message = "request_retention_hours: want 1 to 744 (31 days)."
  }
}

variable "dead_letter_retention_days" {
  description = "How long dead letters wait for an operator, and for RecordDeadLetter. Emulators allow at most 7."
  type        = number
  default     = 31

  validation {
    condition     = var.dead_letter_retention_days >= 1 && var.dead_letter_retention_days <= 31
    error_message = "dead_letter_retention_days: Pub/Sub allows 1 to 31."
  }
}

variable "storage_regions" {
  description = "Regions that messages may be stored in, and requests be published and pushed in; empty leaves that to the organisation's policy."
  type        = list(string)
  default     = []
}

variable "kms_key" {
  description = "Cloud KMS key that encrypts the topics' messages, as projects/…/cryptoKeys/…; null for Google's own keys."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to destroy what can hold messages: the topics and their subscriptions."
  type        = bool
  default     = false
}

variable "labels" {
  description = "Labels of topics and subscriptions."
  type        = map(string)
  default     = {}
}
