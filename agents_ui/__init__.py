"""What people see: pages, forms and the sockets that keep pages live."""
