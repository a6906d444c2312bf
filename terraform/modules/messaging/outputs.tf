output "requests_topic" {
  description = "Name of the topic of requests."
  value       = google_pubsub_topic.requests.name
}

output "dead_letters_topic" {
  description = "Name of the topic of dead letters."
  value       = google_pubsub_topic.dead_letters.name
}

output "requests_subscription" {
  description = "Name of the subscription that pushes requests."
  value       = google_pubsub_subscription.requests.name
}

output "dead_letters_subscription" {
  description = "Name of the subscription that pushes dead letters."
  value       = google_pubsub_subscription.dead_letters.name
}

output "inspect_subscription" {
  description = "Name of the subscription that operators read dead letters from."
  value       = google_pubsub_subscription.inspect.name
}
