"""Other libraries' own classes over our loop, one file each; nothing else in longtake imports them."""
