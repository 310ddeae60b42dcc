"""Files of member tables: written by control, mapped by workers, and what both have to know of them."""
