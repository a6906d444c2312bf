# One image, one service a function. Pub/Sub reaches those that it pushes to inside
# Google's network; the gateway is for browsers.

locals {
  # Cloud Run's most requests at a time; an event stream is one of them.
  gateway_concurrency = 1000
  gateway_streams     = local.gateway_concurrency * var.gateway_max_instances

  services = {
    process = {
      ingress       = "INGRESS_TRAFFIC_INTERNAL_ONLY"
      timeout       = var.ack_deadline_seconds
      concurrency   = var.process_concurrency
      min_instances = var.process_min_instances
      max_instances = var.process_max_instances
      policy        = true
    }
    record = {
      ingress       = "INGRESS_TRAFFIC_INTERNAL_ONLY"
      timeout       = var.ack_deadline_seconds
      concurrency   = 80
      min_instances = 0
      max_instances = var.record_max_instances
      policy        = true
    }
    gateway = {
      ingress       = "INGRESS_TRAFFIC_ALL"
      timeout       = 3600
      concurrency   = local.gateway_concurrency
      min_instances = 0
      max_instances = var.gateway_max_instances
      policy        = false
    }
  }
}

resource "google_cloud_run_v2_service" "functions" {
  for_each = local.functions

  name                 = "${var.name}-${each.key}"
  location             = var.region
  description          = "${var.name}: ${each.value}"
  ingress              = local.services[each.key].ingress
  invoker_iam_disabled = false
  deletion_protection  = false # it holds no data

  template {
    service_account                  = google_service_account.parts[each.key].email
    timeout                          = "${local.services[each.key].timeout}s"
    max_instance_request_concurrency = local.services[each.key].concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = local.services[each.key].min_instances
      max_instance_count = local.services[each.key].max_instances
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        subnetwork = local.subnetwork
      }
    }

    containers {
      image = local.images["functions"]

      ports {
        container_port = local.port
      }

      resources {
        limits = {
          cpu    = "1"
          memory = "512Mi"
        }
        cpu_idle          = !var.enable_telemetry # telemetry is sent between requests
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = local.environment[each.key]
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secret_environment[each.key]
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value.secret
              version = env.value.version
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = { for k, v in google_secret_manager_secret_version.policy : k => v if local.services[each.key].policy }
        content {
          name       = "policy"
          mount_path = local.policy_dir
        }
      }

      # It listens at once; a connection from a new instance into the network can
      # take more than a minute.
      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 5
        failure_threshold = 48
        tcp_socket {
          port = local.port
        }
      }
    }

    dynamic "volumes" {
      for_each = { for k, v in google_secret_manager_secret_version.policy : k => v if local.services[each.key].policy }
      content {
        name = "policy"
        secret {
          secret = volumes.value.secret
          items {
            path    = local.policy_name
            version = volumes.value.version
          }
        }
      }
    }
  }

  depends_on = [time_sleep.readers]
}
