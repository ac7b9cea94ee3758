"""WooCommerce's own products export, whose headers are in the language of the shop."""

from __future__ import annotations

from typing import Final

import pytest

from tests.features.strange.conftest import Shell

HEADERS: Final = {
    "German": (
        "ID,Typ,Artikelnummer,Name,Veröffentlicht,Kurzbeschreibung,Beschreibung,Vorrätig?,"
        "Angebotspreis,Regulärer Preis,Kategorien,Schlagwörter,Bilder,Übergeordnetes Produkt,"
        "Marken,Attribut 1 Name,Attribut 1 Wert(e),Attribut 1 Sichtbar,Attribut 1 Global"
    ),
    "French": (
        "ID,Type,UGS,Nom,Publié,Description courte,Description,En stock ?,Tarif promo,"
        "Tarif régulier,Catégories,Étiquettes,Images,Parent,Marques,Nom de l’attribut 1,"
        "Valeur(s) de l’attribut 1 ,Attribut 1 visible,Attribut 1 global"
    ),
    "Spanish": (
        "ID,Tipo,SKU,Nombre,Publicado,Descripción corta,Descripción,¿Existencias?,Precio rebajado,"
        "Precio normal,Categorías,Etiquetas,Imágenes,Superior,Marcas,Nombre del atributo 1,"
        "Valor(es) del atributo 1,Atributo visible 1,Atributo global 1"
    ),
    "Italian": (
        "ID,Tipo,COD,Nome,Pubblicato,Breve descrizione,Descrizione,In stock?,Prezzo in offerta,"
        "Prezzo di listino,Categorie,Tag,Immagini,Genitore,Marchi,Attributo 1 nome,"
        "Attributo 1 valore(i),Attributo 1 visibile,Attributo 1 globale"
    ),
    "Portuguese": (
        "ID,Tipo,SKU,Nome,Publicado,Descrição curta,Descrição,Em estoque?,Preço promocional,Preço,"
        "Categorias,Tags,Imagens,Ascendente,Marcas,Nome do atributo 1,Valores do atributo 1,"
        "Visibilidade do atributo 1,Atributo global 1"
    ),
    "Dutch": (
        "ID,Type,Artikelnummer,Naam,Gepubliceerd,Korte beschrijving,Beschrijving,Op voorraad?,"
        "Actieprijs,Reguliere prijs,Categorieën,Tags,Afbeeldingen,Hoofd,Merken,Naam eigenschap 1,"
        "Waarde eigenschap 1,Zichtbare eigenschap 1,Globale eigenschap 1"
    ),
    "Polish": (
        "ID,Typ,SKU,Nazwa,Opublikowano,Krótki opis,Opis,W magazynie?,Cena promocyjna,Cena,"
        "Kategorie,Tagi,Obrazki,Element nadrzędny,Marki,Nazwa atrybutu 1,Wartość(i) atrybutu 1,"
        "Widoczność atrybutu 1,Globalny atrybut 1"
    ),
}
ROWS: Final = """
44,variable,hood,Hoodie,1,A warm hoodie,Brushed.,1,,,"Clothing, Sale",winter,h.jpg,,Acme,Size,"M, L",1,1
45,variation,hood-m,Hoodie - M,1,,,1,,"45,50",,,,hood,,Size,M,,1
55,simple,bean,Beanie,1,A hat,,0,"18,00","20,00",Clothing,,,,,,,,
"""
ORDERS: Final = """Order Number,Order Date,Email (Billing),SKU,Item Name,Quantity
701,2024-03-01 10:30,ada@example.com,hood-m,Hoodie - M,1
702,2024-03-02 11:00,ben@example.com,bean,Beanie,2
"""


@pytest.mark.parametrize("language", HEADERS)
def test_a_products_export_in_another_language(shell: Shell, language: str) -> None:
    shell.write(products_csv=HEADERS[language] + ROWS, orders_csv=ORDERS)
    _, settings = shell.inspect("products.csv orders.csv")
    assert settings == "data=woocommerce data.items=products.csv data.events=orders.csv"
    assert shell.table("items", "item_id", "product", "title", "price", "in_stock", "published") == [
        ("hood-m", "hood", "Hoodie - M", 45.5, True, True),
        ("bean", "bean", "Beanie", 18.0, False, True),
    ]
    assert shell.table("items", "item_text") == [
        (
            "Hoodie - M. Brand: Acme. Categories: Clothing, Sale. Attributes: Size: M. Tags: winter. "
            "Short description: A warm hoodie. Description: Brushed.",
        ),
        ("Beanie. Categories: Clothing. Short description: A hat",),
    ]
    assert shell.table("events", "user_id", "item_id") == [
        ("ada@example.com", "hood-m"),
        ("ben@example.com", "bean"),
    ]
