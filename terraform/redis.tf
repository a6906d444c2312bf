locals {
  make_redis = var.create_redis ? toset(["this"]) : toset([])
  redis      = var.create_redis ? google_redis_instance.this["this"] : null
  redis_ca_cert = var.create_redis ? join("\n", [
    for c in local.redis.server_ca_certs : trimspace(c.cert)
  ]) : var.redis_ca_cert
}

resource "google_redis_instance" "this" {
  for_each = local.make_redis

  name                    = var.name
  region                  = var.region
  tier                    = var.redis_tier
  memory_size_gb          = var.redis_memory_gb
  redis_version           = var.redis_version
  authorized_network      = google_compute_network.this["this"].id
  connect_mode            = "DIRECT_PEERING" # it can be taken away again, unlike a private service connection
  auth_enabled            = true
  transit_encryption_mode = "SERVER_AUTHENTICATION"
  customer_managed_key    = var.kms_key
  deletion_protection     = var.deletion_protection

  # Any other policy may evict what keeps a change from being made twice.
  redis_configs = {
    maxmemory-policy = "noeviction"
  }

  # A snapshot would bring back requests that were made since as if they were still
  # to be made, and changes with them. Without one a total loss is noticed (the
  # epoch is another), and nothing is made twice.
  persistence_config {
    persistence_mode = "DISABLED"
  }

  depends_on = [time_sleep.apis, time_sleep.kms]
}

# Where Redis is: the URL is written anew when that changes.
resource "terraform_data" "redis_address" {
  triggers_replace = var.create_redis ? "${local.redis.host}:${local.redis.port}" : "redis_url"
}
