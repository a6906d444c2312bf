locals {
  pools = var.bridge_mode == "pool" ? toset(["this"]) : toset([])
  jobs  = var.bridge_mode == "job" ? toset(["this"]) : toset([])

  # A drain ends on its own before the platform ends it, and that is a minute before
  # the next begins: there are never two. (Two would do no harm: bridges share a group.)
  job_seconds   = (var.drain_minutes - 1) * 60
  drain_seconds = local.job_seconds - 30
}

resource "google_cloud_run_v2_worker_pool" "bridge" {
  for_each = local.pools

  name                = "${var.name}-bridge"
  location            = var.region
  description         = "${var.name}: drains the requests stream into Pub/Sub"
  deletion_protection = false # it holds no data

  scaling {
    manual_instance_count = var.bridge_instances
  }

  template {
    service_account = google_service_account.parts["bridge"].email

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        subnetwork = local.subnetwork
      }
    }

    containers {
      image = local.images["bridge"]
      args  = ["run"]

      resources {
        limits = {
          cpu    = "1"
          memory = "512Mi"
        }
      }

      dynamic "env" {
        for_each = local.environment.bridge
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secret_environment.bridge
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
        for_each = google_secret_manager_secret_version.policy
        content {
          name       = "policy"
          mount_path = local.policy_dir
        }
      }

      # Ready is: it has reached Redis. A connection from a new instance into the
      # network can take more than a minute.
      startup_probe {
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 24
        http_get {
          path = "/readyz"
          port = local.port
        }
      }

      # Alive is: it is pulling, or waiting on purpose.
      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 5
        failure_threshold = 3
        http_get {
          path = "/healthz"
          port = local.port
        }
      }
    }

    dynamic "volumes" {
      for_each = google_secret_manager_secret_version.policy
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

  # It looks for its topics when it starts.
  depends_on = [time_sleep.readers, module.messaging]
}

resource "google_cloud_run_v2_job" "bridge" {
  for_each = local.jobs

  name                = "${var.name}-bridge"
  location            = var.region
  deletion_protection = false # it holds no data

  template {
    parallelism = 1
    task_count  = 1

    template {
      service_account = google_service_account.parts["bridge"].email
      timeout         = "${local.job_seconds}s"
      max_retries     = 0 # the next one comes soon enough

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          subnetwork = local.subnetwork
        }
      }

      containers {
        image = local.images["bridge"]
        args  = ["drain", "--timeout", "${local.drain_seconds}s"]

        resources {
          limits = {
            cpu    = "1"
            memory = "512Mi"
          }
        }

        dynamic "env" {
          for_each = local.environment.bridge
          content {
            name  = env.key
            value = env.value
          }
        }

        dynamic "env" {
          for_each = local.secret_environment.bridge
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
          for_each = google_secret_manager_secret_version.policy
          content {
            name       = "policy"
            mount_path = local.policy_dir
          }
        }
      }

      dynamic "volumes" {
        for_each = google_secret_manager_secret_version.policy
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
  }

  depends_on = [time_sleep.readers, module.messaging]
}
