"""What a store keeps besides caches: listed, shown, removed, pushed and pulled."""
