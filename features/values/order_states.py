"""Usual names of order state columns, and their values for void orders."""

from __future__ import annotations

from typing import Final

from features.values.names import normalised_name

_STATUS: Final = frozenset(
    "status statut estado stato situacao stan zustand etat state paymentstatus orderstatus bestellstatus "
    "auftragsstatus zahlungsstatus betaalstatus orderstatus statuszamowienia".split()
)
_FLAGS: Final = frozenset(
    "cancelled canceled cancellation refunded refund returned void voided deleted storniert storno retoure "
    "erstattet annule rembourse cancelado cancelada anulado reembolsado devuelto annullato rimborsato reso "
    "geannuleerd geretourneerd anulowane zwrot".split()
)
"""Words in names of columns that hold a flag or a time."""
_DELIVERY: Final = frozenset(
    "fulfillment fulfilment shipping shipment delivery versand lieferung".split(),
)
_VOID: Final = frozenset(
    "cancelled canceled cancel cancellation annulled void voided storniert storno abgebrochen annule annulee "
    "annulation cancelado cancelada anulado anulada annullato annullata annulliert geannuleerd anulowane "
    "anulowano anulowany refunded refund erstattet ruckerstattet rembourse remboursee reembolsado "
    "reembolsada "
    "rimborsato rimborsata terugbetaald zwrocone zwrot returned return retoure retourniert zuruckgeschickt "
    "retourne devolvido devuelto reso geretourneerd failed failure fehlgeschlagen echouee fallido falhou "
    "fallito mislukt declined rejected abgelehnt refusee expired abgelaufen chargeback fraud trash".split()
)
_UNPAID: Final = frozenset(
    "pending pending_payment awaiting_payment unpaid on_hold draft checkout_draft unbezahlt ausstehend "
    "zahlung_ausstehend en_attente attente_paiement impayee non_payee pendiente pendente "
    "aguardando_pagamento nao_pago in_attesa in_attesa_di_pagamento non_pagato in_afwachting onbetaald "
    "oczekujace nieoplacone".split()
)
"""Void as state of a payment or an order, not of a delivery: pending goods have been bought."""
_YES: Final = frozenset(("1", "true", "yes", "y", "ja", "oui", "si", "sim", "tak", "t"))


def is_state_column(column: str) -> bool:
    """Return whether a column's name is that of an order's state, or of its cancellation."""
    written = normalised_name(column)
    words = set(written.split("_"))
    return bool(words & (_STATUS | _FLAGS)) or written.replace("_", "").endswith("status")


def is_void(column: str, value: str) -> bool:
    """Return whether a value of such a column means that nothing was bought, or that it was returned.

    Args:
        column: its name; for a flag such as `is_cancelled`, yes is such a value.
        value: the raw value.
    """
    words = set(normalised_name(column).split("_"))
    state = normalised_name(value).removeprefix("wc_")
    if words & _FLAGS and not words & _STATUS:
        return state in _YES
    return state in _VOID or (state in _UNPAID and not words & _DELIVERY)
