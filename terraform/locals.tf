locals {
  labels = merge({ app = var.name, managed-by = "terraform" }, var.labels)

  topics = {
    requests    = "${var.name}-requests"
    dead_letter = "${var.name}-dead-letters"
    inspect     = "${var.name}-dead-letters-inspect"
  }

  # The waits between a request's attempts: doubling, from the shortest to the longest.
  backoffs = [
    for i in range(var.max_attempts - 1) : min(var.max_backoff_seconds, var.min_backoff_seconds * pow(2, i))
  ]
  backoff_seconds      = sum(local.backoffs)
  retry_window_seconds = local.backoff_seconds + var.max_attempts * var.ack_deadline_seconds

  # Deployed parts, by the name that IAM, secrets and services call them.
  functions = merge(
    { process = "ProcessRequest", record = "RecordDeadLetter" },
    var.enable_gateway ? { gateway = "Gateway" } : {},
  )
  parts = toset(concat(["bridge"], keys(local.functions)))

  # Whether roles come from Firebase, as the policy file says.
  firebase_roles = try(yamldecode(file(var.policy_file)).users.source == "firebase", false)
}
