"""What Anxin is made of: a bill of materials, and checks of it. `make sbom`, `make audit`."""
