# Cloud Run sends from this subnetwork (Direct VPC egress): to Redis, which has a
# private address. What is not private goes to the internet as ever.

locals {
  make_network = var.subnetwork == null
  subnetwork   = local.make_network ? google_compute_subnetwork.run["this"].id : var.subnetwork
}

resource "google_compute_network" "this" {
  for_each = local.make_network ? toset(["this"]) : toset([])

  name                    = var.name
  auto_create_subnetworks = false

  depends_on = [time_sleep.apis]
}

resource "google_compute_subnetwork" "run" {
  for_each = local.make_network ? toset(["this"]) : toset([])

  name                     = "${var.name}-run"
  network                  = google_compute_network.this["this"].id
  region                   = var.region
  ip_cidr_range            = var.subnet_range
  private_ip_google_access = true
}
